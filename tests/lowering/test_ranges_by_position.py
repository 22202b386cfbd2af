"""Massive activations of the first token cost the other tokens neither precision nor rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness import one_op, run_lowered, scheduled
from tiny_models import compiled, secure_outputs
from torch import nn

from mpcc.compiler.cost import estimate
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import lower
from mpcc.compiler.ops import REGISTRY

ATTRS = {"rms_norm": {"eps": 1e-5, "gain": 1.0}, "layer_norm": {"eps": 1e-5, "affine": "none"}}
LENGTH, WIDTH, MASSIVE = 12, 24, 180.0  # mean squares 3e4 beside 1


def samples(massive=MASSIVE, at=0, count=5):
    """Rows whose mean square varies by a factor of ten; the one at a position is multiplied."""
    torch.manual_seed(0)
    result = [torch.randn(2, LENGTH, WIDTH) * torch.logspace(-0.25, 0.25, WIDTH) for _ in range(count)]
    for x in result:
        x[:, at] *= massive
    return result


def norm(op, calibration):
    graph, _, tensors = one_op(op, [calibration[0]], ATTRS[op])
    return calibrate(graph, tensors, [{"x0": x} for x in calibration])["y"]


def rounds(op, calibration, settings):
    graph, _, tensors = one_op(op, [calibration[0]], ATTRS[op])
    ranged = calibrate(graph, tensors, [{"x0": x} for x in calibration])
    cost = estimate(scheduled(lower(ranged, settings).ring), "ring")
    return cost.rounds, cost.bytes_online


def errors(op, calibration, x, settings):
    """The largest error at the first position and at the others."""
    graph, given, tensors = one_op(op, [x], ATTRS[op])
    calibrated = [{"x0": c} for c in calibration]
    got = run_lowered(graph, given, tensors, mode="probabilistic", settings=settings, calibration=calibrated)
    exact = REGISTRY[op].reference([x.double()], ATTRS[op]).numpy()
    error = np.abs(got - exact)
    return error[:, :1].max(), error[:, 1:].max()


@pytest.mark.parametrize("lean", [False, True], ids=["safe", "lean"])
@pytest.mark.parametrize("op", ATTRS)
def test_a_massive_first_token_costs_the_others_nothing(op, lean):
    settings = Settings(frac_bits=13 if lean else 16, lean=lean)
    *calibration, x = samples()
    *usual, y = samples(massive=1.0)
    assert norm(op, calibration).attr("lifted") == (1, 8) and norm(op, usual).attr("lifted") is None
    first, others = errors(op, calibration, x, settings)
    _, without = errors(op, usual, y, settings)
    assert others <= 1.1 * without + 2.0**-settings.frac_bits
    assert first <= 2 * without + 2.0**-settings.frac_bits
    with_rounds, with_bytes = rounds(op, calibration, settings)
    usual_rounds, usual_bytes = rounds(op, usual, settings)
    assert with_rounds <= usual_rounds and with_bytes <= 1.1 * usual_bytes


def test_only_a_beginning_that_always_stands_apart_is_lifted():
    calibration = samples()
    assert norm("rms_norm", samples(at=5)).attr("lifted") is None, "another position may be padding"
    calibration[2][:, 0] /= MASSIVE
    mixed = norm("rms_norm", calibration)
    assert mixed.attr("lifted") is None, "one sample without it"
    assert dict(mixed.stats)["variance_max"] > 1e4, "then one domain holds all"
    assert norm("rms_norm", [x[0] for x in samples()]).attr("lifted") is None, "rows of a batch are no positions"


class Block(nn.Module):
    """A pre-norm block with a gate, and a head that does not read the first token alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.gate, self.up = nn.Linear(WIDTH, 2 * WIDTH, bias=False), nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.down, self.head = nn.Linear(2 * WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 3)
        self.first, self.last = nn.RMSNorm(WIDTH, eps=1e-5), nn.RMSNorm(WIDTH, eps=1e-5)

    def forward(self, hidden):
        x = self.first(hidden)
        hidden = hidden + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return self.head(self.last(hidden))


def test_a_block_with_a_massive_first_token():
    model, found = Block().eval(), []
    for massive in (1.0, MASSIVE):
        inputs = [{"hidden": x[:1]} for x in samples(massive)]
        program = compiled(model, inputs[1:], profile="default", output="all")
        lifted = [n.attr("lifted") for n in program.regions.mpc if n.op == "rms_norm"]
        with torch.no_grad():
            exact = model(**inputs[0]).numpy()
        (got,) = secure_outputs(program, inputs[0], "probabilistic").values()
        steps = [n for n, _ in program.ring.walk() if n.op == "lt_zero"]
        found.append((np.abs(got - exact)[:, 1:].max(), lifted, sum(n.type.elements for n in steps)))
    (usual, not_lifted, comparisons), (error, lifted, as_many) = found
    assert not_lifted == [None] and lifted == [(1, 8)], "the client computes the first norm"
    assert error <= 1.5 * usual + 2.0**-12
    assert as_many <= comparisons, "no more segments where the root starts"
