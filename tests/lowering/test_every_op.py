"""Every secure operation lowered alone, on the emulator, against its float reference."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from harness import MODES, one_op, run_lowered
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_cases import CASES, claims, numbered, whole
from op_operands import r

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.families import RULES
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import RING


def test_operations_that_claim_a_lowering_have_one():
    assert set(RULES) == {op for op in REGISTRY if RING in claims(op)}


def test_a_lowering_reads_declared_statistics_only(monkeypatch):
    graph, inputs, tensors = one_op("gelu", [r(3)], {"approximate": "none"})
    monkeypatch.setattr(type(REGISTRY["gelu"]), "statistics", ())
    with pytest.raises(InternalError, match="gelu reads argument_min"):
        run_lowered(graph, inputs, tensors, mode="nearest")


def test_what_is_measured_is_what_is_declared(monkeypatch):
    graph, inputs, tensors = one_op("gelu", [r(3)], {"approximate": "none"})
    monkeypatch.setattr(type(REGISTRY["gelu"]), "statistics", ("argument_min",))
    with pytest.raises(InternalError, match=r"gelu declares .* and measures"):
        run_lowered(graph, inputs, tensors, mode="nearest")


def quantised(t, frac_bits):
    """What the ring is given: float inputs are rounded before they are shared."""
    return torch.round(t.double() * 2.0**frac_bits) / 2.0**frac_bits if t.is_floating_point() else t


def check(op, operands, attrs, weights, mode, allowed, frac_bits=16):
    graph, inputs, tensors = one_op(op, operands, attrs, weights=weights, whole=whole(operands))
    exact = [quantised(t, 16 if i in weights else frac_bits) for i, t in enumerate(operands)]
    expected = REGISTRY[op].reference(exact, attrs).numpy()
    got = run_lowered(graph, inputs, tensors, mode=mode, settings=Settings(frac_bits=frac_bits))
    assert got.shape == expected.shape
    tolerance = allowed * max(1.0, 2.0 ** (16 - frac_bits) / 2)
    np.testing.assert_array_less(np.abs(got - expected) / np.maximum(1, np.abs(expected)), tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "number"), numbered(RING))
def test_against_reference(op, number, mode):
    torch.manual_seed(zlib.crc32(f"{op}{number}".encode()))
    case = CASES[op][number]
    check(op, case.operands(), case.attrs, case.weights, mode, case.ring)


@pytest.mark.parametrize("op", sorted({op for op, number in numbered(RING) if number == 0}))
def test_with_fewer_fractional_bits(op):
    torch.manual_seed(zlib.crc32(op.encode()))
    case = CASES[op][0]
    check(op, case.operands(), case.attrs, case.weights, "probabilistic", case.ring, frac_bits=13)


@pytest.mark.parametrize("op", ["reciprocal", "rsqrt", "sqrt"])
def test_arguments_that_are_not_positive_are_refused(op):
    graph, inputs, tensors = one_op(op, [torch.tensor([1.0, 0.0])], {})
    with pytest.raises(RangeError, match=r"positive|not finite"):
        run_lowered(graph, inputs, tensors, mode="nearest")


def test_whole_inputs_stay_at_scale_zero():
    """A one-hot matrix costs no truncation."""
    table = r(10, 4)
    hot = torch.nn.functional.one_hot(torch.tensor([3, 0, 9]), 10).float()
    graph, inputs, tensors = one_op("matmul", [hot, table], {}, weights=(1,), whole=(0,))
    got = run_lowered(graph, inputs, tensors, mode="probabilistic")
    assert np.array_equal(got, np.rint(table[[3, 0, 9]].double().numpy() * 2**16) / 2**16)


FAST = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sizes = st.integers(1, 7)
magnitudes = st.sampled_from([0.01, 1.0, 30.0])
seeds = st.integers(0, 2**31)


def tolerance(op):
    return CASES[op][0].ring


@FAST
@given(sizes, sizes, sizes, magnitudes, seeds)
def test_products_of_any_shape(n, k, m, scale, seed):
    torch.manual_seed(seed)
    check("matmul", [r(n, k, scale=scale), r(k, m)], {}, (), "probabilistic", tolerance("matmul"))
    check("linear", [r(n, k, scale=scale), r(m, k), r(m)], {}, (1, 2), "probabilistic", tolerance("linear"))


@FAST
@given(st.lists(sizes, min_size=1, max_size=3), st.data(), magnitudes, seeds)
def test_broadcasting_of_any_shape(shape, data, scale, seed):
    torch.manual_seed(seed)
    drop = data.draw(st.integers(0, len(shape) - 1))
    other = [1 if data.draw(st.booleans()) else n for n in shape[drop:]]
    for op in ("add", "sub", "mul"):
        check(op, [r(*shape, scale=scale), r(*other)], {}, (), "probabilistic", tolerance(op))


@FAST
@given(st.integers(1, 40), magnitudes, seeds, st.sampled_from(["gelu", "tanh", "sigmoid", "silu", "relu"]))
def test_activations_in_any_range(n, scale, seed, op):
    torch.manual_seed(seed)
    attrs = {"approximate": "none"} if op == "gelu" else {}
    check(op, [r(n, scale=scale)], attrs, (), "probabilistic", tolerance(op))


@FAST
@given(st.integers(1, 20), st.sampled_from([0.01, 1.0, 15.0]), seeds)
def test_softmax_of_any_length_and_spread(n, scale, seed):
    torch.manual_seed(seed)
    check("softmax", [r(3, n, scale=scale)], {"dim": 1}, (), "probabilistic", tolerance("softmax"))


@FAST
@given(st.integers(6, 40), st.sampled_from([1.0, 15.0]), seeds)
def test_norms_of_any_width_and_scale(n, scale, seed):
    torch.manual_seed(seed)
    x = r(3, n, scale=scale) + 0.3
    check(
        "layer_norm", [x, r(n), r(n)], {"eps": 1e-5, "affine": "gamma_beta"}, (1, 2), "nearest", tolerance("layer_norm")
    )


@FAST
@given(st.integers(1, 20), st.integers(0, 13), magnitudes, seeds, st.sampled_from(MODES))
def test_rounding_is_off_by_half_a_unit(n, frac_bits, scale, seed, mode):
    """To any number of fractional bits: nothing below the unit is left, and nothing else has changed."""
    torch.manual_seed(seed)
    x = r(n, scale=scale)
    graph, inputs, tensors = one_op("round_nearest", [x], {"frac_bits": frac_bits})
    units = run_lowered(graph, inputs, tensors, mode=mode) * 2.0**frac_bits
    assert np.array_equal(units, np.rint(units))
    assert np.abs(units / 2.0**frac_bits - quantised(x, 16).numpy()).max() <= 2.0 ** -(frac_bits + 1)
