"""Updates of low rank are found, named public and private rightly, and merged again where that is cheaper."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from harness import canonicalise
from tiny_models import batches, compiled, secure_outputs, tiny

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition, labels_of
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.visibility import infer
from mpcc.marill import add_lora, freeze_layers
from mpcc.passes.graph.merge_adapters import merge_adapters
from mpcc.passes.graph.recover_lora import recover_lora

NAME, RANK = "BertForSequenceClassification", 2
LINEARS = 12  # of two layers


def pair(rank=RANK, scale=0.3, noise=0.0):
    """(base, the base with an update of rank `rank` on every linear layer of the encoder)."""
    base = tiny(NAME)
    tuned = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "encoder" in name and weight.dim() == 2:
                a, b = (torch.randn(n, rank, generator=generator) * scale for n in weight.shape)
                weight.add_(a @ b.T + noise * torch.randn(weight.shape, generator=generator))
    return base, tuned


def recovered(wanted, **options):
    base, tuned = pair(**options)
    model, partition = capture(tuned, batches(6)[0]), Partition.from_base(base)
    return model, partition, *recover_lora(model, partition, wanted)


def test_the_exact_update_is_found_and_computes_the_same():
    model, _, changed, found = recovered(RANK)
    assert len(found) == LINEARS and all(f.rank == RANK and f.error < 1e-5 for f in found)
    for inputs in batches(6):
        one, two = (run_graph(m.graph, inputs, m.tensors) for m in (model, changed))
        torch.testing.assert_close(
            two[changed.graph.outputs[0][1]], one[model.graph.outputs[0][1]], atol=1e-4, rtol=1e-4
        )


def test_the_base_is_public_and_the_update_private():
    _, partition, changed, found = recovered(RANK)
    labels = labels_of(partition.label(changed))
    for f in found:
        stem = f.tensor.removesuffix(".weight")
        assert labels[f"{stem}.base_layer.weight"] == "public"
        assert labels[f"{stem}.lora_A.recovered.weight"] == labels[f"{stem}.lora_B.recovered.weight"] == "provider"
        assert f.tensor not in changed.tensors


def test_the_public_part_is_the_bases_and_not_the_models():
    """Whatever the fine-tuned weight holds, the public bytes are those of the checkpoint."""
    base, tuned = pair()
    changed, found = recover_lora(capture(tuned, batches(6)[0]), Partition.from_base(base), 1)
    state = base.state_dict()
    for f in found:
        assert torch.equal(changed.tensors[f.tensor.replace(".weight", ".base_layer.weight")], state[f.tensor])


def test_a_smaller_rank_tells_what_it_loses():
    model, _, changed, found = recovered(1)
    for f in found:
        stem = f.tensor.removesuffix(".weight")
        low = changed.tensors[f"{stem}.lora_B.recovered.weight"] @ changed.tensors[f"{stem}.lora_A.recovered.weight"]
        whole = changed.tensors[f"{stem}.base_layer.weight"] + low
        lost = (model.tensors[f.tensor] - whole).norm()
        update = (model.tensors[f.tensor] - changed.tensors[f"{stem}.base_layer.weight"]).norm()
        assert f.error == pytest.approx(float(lost / update), rel=1e-3) and f.error > 0.1


def test_an_error_gives_the_smallest_rank_in_the_same_place_of_all_layers():
    _, _, _, found = recovered(0.1, noise=0.005)
    assert found and all(f.error <= 0.1 for f in found)
    ranks = {}
    for f in found:
        ranks.setdefault(f.tensor.replace(".0.", ".*.").replace(".1.", ".*."), set()).add(f.rank)
    assert all(len(same) == 1 for same in ranks.values())
    assert {r for same in ranks.values() for r in same} == {RANK}


def test_a_rank_that_saves_nothing_leaves_the_weight_alone():
    model, _, changed, found = recovered(14)
    assert not found and changed is model


@pytest.mark.parametrize("wanted", [0, -1, 1.5, 0.0])
def test_nonsense_is_refused(wanted):
    base, tuned = pair()
    with pytest.raises(MpccError, match="neither a rank"):
        recover_lora(capture(tuned, batches(6)[0]), Partition.from_base(base), wanted)


def test_without_a_base_nothing_can_be_found():
    with pytest.raises(MpccError, match="--base"):
        recover_lora(capture(pair()[1], batches(6)[0]), Partition.all_private(), 2)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["ring", "dealer-ring"])
def test_the_secure_program_computes_the_model(protocol):
    base, tuned = pair()
    inputs = batches(6)
    partition = replace(Partition.from_base(base), all_public=True)  # the head stays as it was
    program = compiled(tuned, inputs, partition, recover_lora=RANK, protocol=protocol)
    for x in inputs[:2]:
        with torch.no_grad():
            expected = tuned(**x).logits.numpy()
        assert abs(secure_outputs(program, x, "nearest")["logits"] - expected).max() < 2e-2


def lora_graph():
    model = tiny(NAME)
    partition = Partition.from_base(copy.deepcopy(model))
    freeze_layers(model, layers=1)
    adapted = add_lora(model, RANK, alpha=3).eval()
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.add_(0.3 * torch.randn_like(p))
    captured = capture(adapted, batches(6)[0])
    labels = labels_of(partition.label(captured))
    graph, tensors = canonicalise(captured.graph, captured.tensors)
    return infer(graph, labels), tensors, labels


def secret_products(graph):
    return [n for n in graph if n.op == "linear" and n.site == "mpc"]


def test_an_adapter_stays_apart_where_public_products_are_free():
    graph, _, _ = lora_graph()
    assert merge_adapters(graph, public_products_local=True) == graph


def test_an_adapter_is_merged_where_they_cost_as_much():
    graph, tensors, labels = lora_graph()
    merged = infer(merge_adapters(graph, public_products_local=False), labels)
    apart, together = len(secret_products(graph)), len(secret_products(merged))
    assert apart == 3 * 7 + 1 - 3, "the client multiplies the first queries, keys and values with the public weights"
    assert together == 7 + 1
    sums = [n for n in merged if n.op == "matmul" and n.site == "provider"]
    assert len(sums) == 7, "the provider multiplies the thin matrices"
    for inputs in batches(6):
        one, two = (run_graph(g, inputs, tensors) for g in (graph, merged))
        torch.testing.assert_close(two[merged.outputs[0][1]], one[graph.outputs[0][1]], atol=1e-4, rtol=1e-4)
