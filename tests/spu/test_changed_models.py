"""A changed model is one function, whoever computes it: marill's torch, calibration, emulator, stand-in and SPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from in_process import run
from tiny_models import batches, compiled, on_standin, secure_outputs, tiny

from mpcc.backends.spu.norm_sums import largest_sums
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.compiler.fixed import decode
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.marill import approximate

FORMS = {"gelu": ["quad"], "softmax": ["2relu", "2quad"]}
CHOICES = [(op, form) for op, forms in FORMS.items() for form in forms]
TOLERANCE = 0.02


@pytest.fixture(scope="module", params=CHOICES, ids=lambda c: "=".join(c))
def changed(request):
    """(program compiled of the unchanged model with the choice, an input with padding, what torch says of it)."""
    (op, form) = request.param
    inputs = batches(6)
    program = compiled(tiny("BertForSequenceClassification", layers=1), inputs, approximations={op: form})
    trained = tiny("BertForSequenceClassification", layers=1)
    approximate(trained, **{op: form}, layers=[0])
    with torch.no_grad():
        return program, inputs[1], trained(**inputs[1]).logits.numpy()


def in_float(program, given):
    shared = run_graph(program.regions.client, given, program.tensors)
    mpc = program.regions.mpc
    typed = {n.name: shared[n.name] for n in mpc if n.op == "input"}
    return typed, outputs_of(mpc, run_graph(mpc, typed, program.tensors))["logits"].numpy()


def test_calibration_and_the_reference_of_verify_see_it(changed):
    program, given, wanted = changed
    _, got = in_float(program, given)
    assert np.abs(got - wanted).max() < 1e-4
    node = program.regions.mpc[dict(program.regions.mpc.outputs)["logits"]]
    assert node.range[0] - 1e-4 <= wanted.min() and wanted.max() <= node.range[1] + 1e-4


def test_the_emulator_computes_it(changed):
    program, given, wanted = changed
    assert np.abs(secure_outputs(program, given, "probabilistic")["logits"] - wanted).max() < TOLERANCE


def test_the_emitted_source_computes_it(changed):
    program, given, wanted = changed
    (got,) = on_standin(program, given)
    scale = program.ring[dict(program.ring.outputs)["logits"]].type.frac_bits
    assert np.abs(decode(got, scale).reshape(wanted.shape) - wanted).max() < TOLERANCE


@pytest.mark.spu
def test_spu_computes_it(changed):
    program, given, wanted = changed
    shared, _ = in_float(program, given)
    mpc = program.regions.mpc
    values = {k: v.float().numpy() for k, v in {**program.tensors, **shared}.items()}
    got = run(emit_stablehlo(mpc, largest_sums(mpc, program.ring)), values)["logits"]
    assert np.abs(got - wanted).max() < TOLERANCE


def test_it_is_another_function(changed):
    """None of the comparisons above would hold for the model as it was."""
    _, given, wanted = changed
    with torch.no_grad():
        unchanged = tiny("BertForSequenceClassification", layers=1)(**given).logits.numpy()
    assert np.abs(wanted - unchanged).max() > 2 * TOLERANCE
