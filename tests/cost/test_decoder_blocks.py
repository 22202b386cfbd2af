"""The activations and norms of decoders cost what those of BERT cost."""

from __future__ import annotations

import pytest
import torch
from harness import one_op, scheduled

from mpcc.compiler.cost import Cost, estimate
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import lower

GELU = ("gelu", {"approximate": "none"})


def cost(op: str, attrs: dict[str, object], scale: float, lean: bool) -> Cost:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 16).clamp(-3, 3) * scale
    graph, given, tensors = one_op(op, [x], attrs)
    ring = lower(calibrate(graph, tensors, [given]), Settings(lean=lean)).ring
    return estimate(scheduled(ring), "ring")


@pytest.mark.parametrize("lean", [False, True], ids=["safe", "lean"])
@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["narrow", "wide"])
@pytest.mark.parametrize("other", [("gelu", {"approximate": "tanh"}), ("silu", {})], ids=["tanh", "silu"])
def test_an_element_of_gelu_by_tanh_and_of_silu_costs_what_gelu_does(other, scale, lean):
    ours, bert = cost(*other, scale, lean), cost(*GELU, scale, lean)
    assert ours.bytes_online <= 1.15 * bert.bytes_online and ours.rounds <= bert.rounds
    assert not [row for row in ours.rows if row.primitive == "lt"], "no comparison"


@pytest.mark.parametrize("lean", [False, True], ids=["safe", "lean"])
def test_rms_norm_costs_no_more_than_layer_norm(lean):
    ours = cost("rms_norm", {"eps": 1e-6, "gain": 1.0}, 1.0, lean)
    usual = cost("layer_norm", {"eps": 1e-6, "affine": "none"}, 1.0, lean)
    assert ours.bytes_online <= 1.15 * usual.bytes_online and ours.rounds <= 1.15 * usual.rounds
