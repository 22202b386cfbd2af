"""Whole models from capture to the emulator and the stand-in, against PyTorch."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import peft
import pytest
import torch
from tiny_models import batches, compiled, emulated, on_standin, secure_outputs, tiny

from mpcc.compiler.cost import estimate
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import compile_model
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition

LOGITS, HIDDEN_MEAN = 0.02, 5e-3


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def expected(model, inputs):
    with torch.no_grad():
        return {k: v.double().numpy() for k, v in model(**inputs).items() if isinstance(v, torch.Tensor)}


def agree(model, program, inputs, mode="probabilistic"):
    """Every output the program reveals equals PyTorch's within tolerance, at kept positions; the largest error."""
    want = expected(model, inputs)
    got = secure_outputs(program, inputs, mode)
    assert got and set(got) <= set(want)
    kept = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool().numpy()
    for name, value in got.items():
        assert value.shape == want[name].shape
        error = np.abs(value - want[name])
        if value.ndim == 3:
            error = error[kept]
        assert np.std(want[name]) > 0.1, "a flat model proves nothing"
        if name == "logits":
            assert error.max() < LOGITS, name
        else:
            assert error.mean() < HIDDEN_MEAN, name
    return got


def check(model, inputs, mode="probabilistic", partition=None, **options):
    program = compiled(model, inputs, partition, **options)
    for one in inputs[:3]:
        agree(model, program, one, mode)
    return program


FAMILIES = [
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "DistilBertForSequenceClassification",
    "DistilBertModel",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    program = check(tiny(name), batches(8), output="all")
    if name == "BertModel":
        assert {n for n, _ in program.ring.outputs} == {"last_hidden_state", "pooler_output"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", [1, 3])
def test_depths_and_attention_implementations(layers, attention):
    program = check(tiny("BertForSequenceClassification", layers=layers, attention=attention), batches(6), "nearest")
    repeats = [n for n in program.ring if n.op == "repeat"]
    assert len(repeats) == (layers > 1)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "heads", "inner"), [(12, 3, 20), (24, 4, 7), (20, 1, 33)], ids=str)
def test_widths_that_are_not_powers_of_two(width, heads, inner):
    check(tiny("BertForSequenceClassification", width=width, heads=heads, inner=inner), batches(7))


@pytest.mark.parametrize("length", [1, 5, 16, 33])
def test_lengths(length):
    check(tiny("DistilBertForSequenceClassification", layers=1), batches(length, count=1 if length == 1 else 3))


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_new", "gelu_pytorch_tanh", "gelu"])
def test_activations(activation):
    check(tiny("BertForSequenceClassification", hidden_act=activation, layers=1), batches(5))


def test_batch_of_two():
    check(tiny("BertForTokenClassification"), batches(6, rows=2))


def test_without_a_mask():
    check(tiny("BertForSequenceClassification"), batches(6, masked=False))


def test_public_mask():
    program = check(tiny("BertForSequenceClassification"), batches(6), public_inputs=("attention_mask",))
    roles = {n.name: n.attr("role") for n in program.regions.mpc if n.op == "input"}
    assert [name for name, role in roles.items() if role == "client"] == ["embedding_rows"]
    assert sorted(roles.values()).count("public") >= 1


def test_one_hot_embedding_of_left_padded_input():
    inputs = batches(6)
    for one in inputs[1:]:
        one["attention_mask"] = one["attention_mask"].flip(1)
    check(tiny("BertForSequenceClassification"), inputs)


def fine_tuned(base, *, frozen=()):
    """A copy of `base` in which everything but the named prefixes moved, as after training."""
    model = copy.deepcopy(base)
    torch.manual_seed(11)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.startswith(tuple(frozen) or ("-",)):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def private_elements(program):
    return program.source.layout.private.elements


def public_elements(program):
    return program.source.layout.public.elements


def test_a_full_fine_tune_has_no_public_weight():
    base = tiny("BertForSequenceClassification")
    model = fine_tuned(base)
    program = check(model, batches(5), partition=Partition.from_base(base))
    parameters = {name for name, _ in model.named_parameters()}
    assert {e.tensor for e in program.evidence if e.visibility == "public"}.isdisjoint(parameters)
    assert public_elements(program) == 0


def test_no_base_has_no_public_weight():
    program = compiled(tiny("BertForSequenceClassification"), batches(5))
    assert public_elements(program) == 0
    assert {
        e.visibility
        for e in program.evidence
        if "embeddings.position_ids" not in e.tensor and "token_type_ids" not in e.tensor
    } == {"provider"}


def test_frozen_prefix_runs_at_the_client():
    base = tiny("BertForSequenceClassification", layers=3)
    model = fine_tuned(base, frozen=("bert.embeddings", "bert.encoder.layer.0.", "bert.encoder.layer.1."))
    program = check(model, batches(6), partition=Partition.from_base(base))
    shared = [n for n in program.regions.mpc if n.op == "input"]
    read, hidden = (1, 1, 16), (1, 6, 16)  # the token that is read: for the query, and centred for the residual
    assert sorted(n.type.shape for n in shared) == [read, read, (1, 6), (1, 6), hidden]  # and keep, anchor
    assert public_elements(program) == 0
    whole = compiled(model, batches(6))
    assert private_elements(program) < private_elements(whole) / 2


def lora(base, *, layers=None, rank=2):
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=4,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
        layers_to_transform=layers,
        layers_pattern="layer" if layers else None,
    )
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    torch.manual_seed(12)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key or "modules_to_save" in key:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_lora():
    base = tiny("BertForSequenceClassification")
    model = lora(base)
    program = check(model, batches(5), partition=Partition.from_peft(base))
    private = {e.tensor for e in program.evidence if e.visibility == "provider"}
    adapter = {n for n, _ in model.named_parameters() if "lora_" in n or "modules_to_save" in n}
    assert private == adapter
    sizes = sum(p.numel() for n, p in model.named_parameters() if n in adapter)
    assert sizes <= private_elements(program)
    # where products with public weights are local, the adapter stays apart: nothing but it is shared
    apart = compiled(model, batches(5), Partition.from_peft(base), protocol="semi2k")
    assert sizes <= private_elements(apart) <= 1.1 * sizes


def test_lora_in_the_last_layer_leaves_the_others_to_the_client():
    base = tiny("BertForSequenceClassification", layers=3)
    program = check(lora(base, layers=[2]), batches(5), partition=Partition.from_peft(base))
    assert (1, 5, 16) in [n.type.shape for n in program.regions.mpc if n.op == "input"]
    assert not [n for n in program.ring if n.op == "repeat"]


STANDIN = {
    "bert": lambda: (tiny("BertForSequenceClassification", layers=2, width=12, heads=3, inner=16), None),
    "lora": lambda: (m := lora(b := tiny("BertForSequenceClassification", layers=1, inner=16))) and (m, b),
}


@pytest.mark.parametrize("kind", STANDIN)
def test_emitted_source_gives_the_same_integers(kind):
    """The stand-in runs the emitted text; under nearest truncation every integer is the emulator's."""
    model, base = STANDIN[kind]()
    partition = Partition.all_private() if base is None else Partition.from_peft(base)
    inputs = batches(4, count=2)
    program = compiled(model, inputs, partition)
    for one in inputs:
        (got,) = on_standin(program, one)
        assert np.array_equal(got, emulated(program, one)["logits"].reshape(-1))


@pytest.mark.slow
def test_source_does_not_grow_with_depth():
    """All layers but the last are one loop; of the last, a classifier needs one token only."""
    lengths = []
    for layers in (3, 6, 12):
        model = tiny("BertForSequenceClassification", layers=layers, width=8, inner=8)
        lengths.append(len(compiled(model, batches(4, count=2)).source.text))
    assert max(lengths) <= 1.05 * min(lengths)


@pytest.mark.parametrize("masked", [False, True])
def test_changed_models_run_too(masked):
    """gelu=quad, softmax=2relu and 2quad: other functions, but they run and stay finite."""
    model = tiny("BertForSequenceClassification", layers=1)
    inputs = batches(5, masked=masked)
    outputs = []
    for approximations in ({"gelu": "quad"}, {"softmax": "2relu"}, {"softmax": "2quad"}):
        program = compiled(model, inputs, approximations=approximations)
        outputs.append(secure_outputs(program, inputs[0], "probabilistic")["logits"])
    assert np.isfinite(outputs).all()
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("failure_bits", [10, 20, 40])
def test_default_profile_is_never_slower_than_safe(failure_bits):
    """A tight budget leaves few truncations local; then the forms made for local ones would only cost time."""
    model, samples = tiny("BertForSequenceClassification"), batches(8)
    captured = capture(model, sequence_length=8)
    costs = {
        profile: compile_model(
            captured, Partition.all_private(), samples, Options(profile=profile, failure_bits=failure_bits)
        )
        for profile in ("safe", "default")
    }
    found = {profile: estimate(c.ring, "ring", network=c.options.network).seconds for profile, c in costs.items()}
    assert found["default"] <= found["safe"]
    choice = costs["default"].truncations
    assert choice is None or choice.failure_probability <= 2.0**-failure_bits
    assert (choice is None) == (costs["default"].settings.frac_bits == costs["safe"].settings.frac_bits)
