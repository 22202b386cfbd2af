"""What fine-tuning leaves is what the compiler takes: fewer softmax elements, public frozen layers, right results."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny_models import batches, compiled, secure_outputs, tiny

from mpcc.cli import app as cli
from mpcc.compiler.cost import estimate
from mpcc.compiler.frontend.partition import Partition
from mpcc.marill import add_lora, approximate, freeze_layers, merge_heads
from mpcc.marill.saving import save

NAMES = ["BertForSequenceClassification", "RobertaForSequenceClassification", "DistilBertForSequenceClassification"]
LENGTH = 8


def model_of(name=NAMES[0], **options):
    model = tiny(name, layers=2, heads=4, **options)
    freeze_layers(model, layers=1)
    return model


def exponentials(program):
    """Elements that softmax compares or exponentiates: what its squarings work on, per squaring."""
    attention = [n for n in program.regions.mpc if n.op == "attention"]
    return sum(n.type.shape[1] * LENGTH * LENGTH for n in attention)


def softmax_products(program):
    rows = [r for r in estimate(program.ring, "ring").rows if r.operation == "attention" and r.primitive == "mul"]
    return sum(r.elements for r in rows)


@pytest.mark.parametrize("grouping", ["similar", pytest.param("adjacent", marks=pytest.mark.slow)])
def test_merging_by_four_divides_softmax_by_four(grouping):
    inputs = batches(LENGTH)
    parameters = {}
    programs = {}
    for factor in (1, 4):
        model = model_of(width=32)
        merge_heads(model, factor, inputs, grouping)
        parameters[factor] = sum(p.numel() for p in model.parameters())
        programs[factor] = compiled(model, [{k: v for k, v in inputs[0].items() if k == "input_ids"}])
    assert parameters[1] == parameters[4]
    assert exponentials(programs[1]) == 2 * 4 * LENGTH**2
    assert exponentials(programs[4]) == (4 + 1) * LENGTH**2  # one layer of two is merged
    assert softmax_products(programs[4]) < softmax_products(programs[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_merged_and_polynomial_models_run_on_masked_inputs(name):
    model = model_of(name)
    inputs = batches(LENGTH)
    merge_heads(model, 2, inputs)
    approximate(model, gelu="quad", softmax="2quad")
    program = compiled(model, inputs)
    for x in inputs[:3]:
        with torch.no_grad():
            expected = model(**x).logits.numpy()
        assert abs(secure_outputs(program, x, "nearest")["logits"] - expected).max() < 2e-2


@pytest.mark.slow
def test_2relu_runs_with_a_mask():
    model = model_of()
    inputs = batches(LENGTH)
    approximate(model, softmax="2relu")
    program = compiled(model, inputs)
    with torch.no_grad():
        expected = model(**inputs[2]).logits.numpy()
    assert abs(secure_outputs(program, inputs[2], "nearest")["logits"] - expected).max() < 5e-2


@pytest.mark.slow
def test_polynomials_leave_no_exponential_and_no_gelu():
    inputs = batches(LENGTH)
    rows = {}
    for forms in ({}, {"gelu": "quad", "softmax": "2quad"}):
        model = model_of()
        base = Partition.from_base(copy.deepcopy(model))
        approximate(model, **forms)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.01)
        rows[bool(forms)] = estimate(compiled(model, inputs, base).ring, "ring").rows
    replaced = {"gelu", "attention"}
    assert replaced <= {r.operation for r in rows[False]}
    assert not replaced & {r.operation for r in rows[True]}
    assert sum(r.bytes for r in rows[True]) < sum(r.bytes for r in rows[False])


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["model", "adapter"])
def test_a_saved_folder_compiles_with_its_base(tmp_path, lora, capsys):
    model = model_of()
    model.base_model.save_pretrained(tmp_path / "base")
    if lora:
        model = add_lora(model, 2).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    inputs = batches(LENGTH)
    merge_heads(model, 2, inputs)
    approximate(model, gelu="quad", softmax="2quad")
    save(model, tmp_path / "tuned")
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps([{k: v.tolist() for k, v in x.items()} for x in inputs]))
    options = ["--base", tmp_path / "base", "--calibration", samples, "--sequence-length", LENGTH, "--profile", "safe"]
    arguments = ["compile", tmp_path / "tuned", *options, *(["--peft"] if lora else []), "-o", tmp_path / "prog.mpc"]
    assert cli.call([str(a) for a in arguments]) == 0
    capsys.readouterr()
    from mpcc.loading import load

    program = load(tmp_path / "prog.mpc")
    frozen = [e for e in program.bundle.manifest.evidence if "layer.0." in e.tensor or "embeddings" in e.tensor]
    assert frozen and all(e.visibility == "public" for e in frozen)
    with torch.no_grad():
        expected = model(**inputs[1]).logits
    found = program.run(inputs[1], "emulator").outputs["logits"]
    assert (found - expected).abs().max() < 2e-2
