"""Affine folding: the same numbers, no LayerNorm affine left inside, and nothing public made private."""

from __future__ import annotations

import pytest
import torch
from harness import canonicalise
from tiny_models import batches, tiny

from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition, labels_of
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.visibility import infer
from mpcc.passes.graph.fold_affine import fold_affine
from mpcc.passes.graph.hoist_prepared import hoist_prepared
from mpcc.passes.graph.prepare_masks import prepare_masks


def labelled(name, partition, length=9, **options):
    captured = capture(tiny(name, **options), sequence_length=length)
    labels = labels_of(partition.label(captured))
    graph, tensors = canonicalise(captured.graph, captured.tensors)
    return infer(prepare_masks(graph, tensors), labels), tensors, labels


def folded(graph, tensors, labels, blocks=False):
    rewritten, constants, recovered = fold_affine(graph, blocks)
    rewritten = infer(rewritten, labels)
    store = tensors | constants
    working, prepared = hoist_prepared(rewritten, store)
    return working, store | prepared, recovered


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "RobertaForTokenClassification", "DistilBertModel"])
@pytest.mark.parametrize("public", [(), ("*embeddings*",)], ids=["private", "public-embeddings"])
@pytest.mark.parametrize("blocks", [False, True], ids=["dense", "blocks"])
def test_same_outputs(name, public, blocks):
    graph, tensors, labels = labelled(name, Partition(public=public))
    working, store, _ = folded(graph, tensors, labels, blocks)
    assert ("linear_diagonal" in {n.op for n in working}) == blocks
    for sample in batches(9):
        expected, found = run_graph(graph, sample, tensors), run_graph(working, sample, store)
        for (_, old), (_, new) in zip(graph.outputs, working.outputs, strict=True):
            torch.testing.assert_close(found[new], expected[old], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [16, 20, 12, 9])
def test_a_residuals_diagonal_is_kept_in_blocks(width):
    graph, tensors, labels = labelled("BertModel", Partition(public=("*embeddings*",)), width=width, heads=1)
    dense, _, _ = folded(graph, tensors, labels)
    working, store, _ = folded(graph, tensors, labels, True)
    products = [n for n in working if n.op == "linear_diagonal"]
    for node in products:
        weight = store[str(working[node.inputs[2]].attr("tensor"))]
        inner, block = working[node.inputs[0]].type.shape[-1], node.attr("block")
        assert weight.shape == (width, inner + block) and width % block == 0 and block <= width / 3
        assert torch.count_nonzero(weight[:, inner:]) == width
        whole = dense[dense[node.name.removesuffix("_product")].inputs[1]]
        assert whole.type.shape == (width, inner + width), "what the dense form multiplies"
    assert len(products) == 3, "all but the first residual, which the client gives"


def test_inside_only_norms_without_affine_part_are_left():
    graph, tensors, labels = labelled("BertForSequenceClassification", Partition(public=("*embeddings*",)))
    working, _, _ = folded(graph, tensors, labels)
    secret = [n for n in working if n.site == "mpc"]
    assert [n.op for n in secret if "norm" in n.op] == ["rms_norm"] * 4
    assert all(len(n.inputs) == 1 for n in secret if n.op == "rms_norm")
    sums = [n for n in secret if n.op in ("add", "mul")]
    assert [n.op for n in sums] == ["add"], "residuals, gamma and beta are parts of the products, but for the first one"
    assert working[sums[0].inputs[1]].site == "client", "which the client centres"


def test_hidden_states_can_be_recovered():
    graph, tensors, labels = labelled("BertForSequenceClassification", Partition(public=("*embeddings*",)))
    working, store, recovered = folded(graph, tensors, labels)
    sample = batches(9)[1]
    expected = run_graph(graph, sample, tensors, keep=set(recovered))
    found = run_graph(working, sample, store, keep={a.source for a in recovered.values()})
    assert len(recovered) == 4
    for name, affine in recovered.items():
        gamma, beta = (tensors[str(graph[w].attr("tensor"))] for w in (affine.gamma, affine.beta))
        torch.testing.assert_close(
            found[affine.source] * gamma / affine.gain + beta, expected[name], atol=2e-4, rtol=1e-4
        )


def test_public_matrices_stay_public():
    """Only a norm's affine part is private: folding it into public matrices would make them private."""
    rules = Partition.from_rules({"public": ["*dense*", "*query*", "*key*", "*value*", "*embeddings*"]})
    graph, tensors, labels = labelled("BertForSequenceClassification", rules)
    working, _, _ = folded(graph, tensors, labels)
    weights = [working[n.inputs[1]] for n in working if n.op == "linear" and n.site == "mpc"]
    # the client's up to the first private norm; then two products of layer 0, six of layer 1, pooler, classifier
    assert sorted(w.visibility for w in weights) == ["provider"] + ["public"] * 9


@pytest.mark.parametrize("private", ["all", "gammas", "products"])
def test_pre_norms_give_their_vectors_to_the_products_and_leave_the_residuals(private):
    """GPT-2 has LayerNorm with a beta, LLaMA RMSNorm: private vectors stay out of public products."""
    products = {"GPT2LMHeadModel": ["*.c_*", "*wte*"], "LlamaForCausalLM": ["*_proj*", "*embed*", "lm_head*"]}
    for name, norms in (("GPT2LMHeadModel", "*ln_*"), ("LlamaForCausalLM", "*norm*")):
        public = {"all": [], "gammas": products[name], "products": [norms]}[private]
        partition = Partition.from_rules({"public": public})
        graph, tensors, labels = labelled(name, partition, pad_token_id=1)
        working, store, _ = folded(graph, tensors, labels)
        secret = [n for n in working if n.site == "mpc"]
        left = [n for n in secret if n.op == "mul" and any(working[i].op == "param" for i in n.inputs)]
        residuals = [n for n in secret if n.op == "add" and n.type.shape[-1] == 16]
        assert len(left) == (5 if private == "gammas" else 0), name
        assert all(len(n.inputs) == 1 for n in secret if "norm" in n.op)
        assert len(residuals) >= 3
        weights = {working[n.inputs[1]].visibility for n in secret if n.op == "linear"}
        assert weights == ({"public"} if private == "gammas" else {"provider"}), name
        sample = batches(9)[1]
        expected, found = run_graph(graph, sample, tensors), run_graph(working, sample, store)
        (_, old), (_, new) = graph.outputs[0], working.outputs[0]
        torch.testing.assert_close(found[new], expected[old], atol=2e-4, rtol=1e-4)
