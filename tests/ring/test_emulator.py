"""The semantics of the primitives, wrap-around, overflow detection, loops, ranges and traces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ring_programs import loop, outputs, unary

from mpcc.backends.emulator import profile, run
from mpcc.backends.emulator.semantics import trunc_nearest, trunc_probabilistic
from mpcc.compiler.errors import InputError, InternalError, RangeError
from mpcc.compiler.fixed import encode
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingOrigin

WORDS = arrays(np.int64, 4, elements=st.integers(-(2**63), 2**63 - 1))


def ints(*values):
    return np.array(values, dtype=np.int64)


def apply(function, x, **options):
    """function(builder, input) run on the integers x."""
    graph = unary(function, x.shape)
    return run(graph, {"x": x}, {}, **{"check": False, **options}).outputs["y"]


def signed(values):
    return [(v + 2**63) % 2**64 - 2**63 for v in values]


# ** linear primitives and wrap-around **
@given(WORDS)
def test_arithmetic_wraps(x):
    big = [int(v) for v in x]
    assert apply(lambda b, v: b.add(v, v), x).tolist() == signed([2 * v for v in big])
    assert apply(lambda b, v: b.sub(b.const(0.0, (4,), 8), v), x).tolist() == signed([-v for v in big])
    assert apply(lambda b, v: b.mul(v, v), x).tolist() == signed([v * v for v in big])
    assert apply(lambda b, v: b.mul_int(v, -12345), x).tolist() == signed([v * -12345 for v in big])
    assert apply(lambda b, v: b.sum(v, 0), x).tolist() == signed([sum(big)])
    assert apply(lambda b, v: b.dot(v, v), x).tolist() == signed([sum(v * v for v in big)])


def test_layouts():
    x = np.arange(6).reshape(2, 3)
    assert apply(lambda b, v: b.permute(v, (1, 0)), x).tolist() == x.T.tolist()
    assert apply(lambda b, v: b.slice(v, 1, 0, 3, 2), x).tolist() == x[:, ::2].tolist()
    assert apply(lambda b, v: b.concat([v, v], 0), x).tolist() == np.concatenate([x, x]).tolist()
    assert apply(lambda b, v: b.reshape(v, (3, 2)), x).tolist() == x.reshape(3, 2).tolist()
    column = np.arange(2).reshape(2, 1)
    assert apply(lambda b, v: b.expand(v, (2, 3)), column).tolist() == [[0] * 3, [1] * 3]


def test_a_slice_may_run_backwards_to_the_start():
    x = np.arange(4)
    assert apply(lambda b, v: b.slice(v, 0, 3, -1, -1), x).tolist() == [3, 2, 1, 0]


def test_batched_matrix_product():
    x = np.random.default_rng(0).integers(-(2**20), 2**20, (2, 3, 3))
    assert (apply(lambda b, v: b.matmul(v, b.transpose(v)), x) == x @ x.transpose(0, 2, 1)).all()


def test_select_and_comparison():
    x = ints(-5, 0, 7, -1)
    assert apply(lambda b, v: b.lt_zero(v), x).tolist() == [1, 0, 0, 1]
    assert apply(lambda b, v: b.select(b.lt_zero(v), b.neg(v), v), x).tolist() == [5, 0, 7, 1]


def test_scalars_wrap_without_a_warning():
    assert apply(lambda b, v: b.mul(v, v), np.array(2**62)).tolist() == 0


# ** truncation **
@given(WORDS, st.integers(1, 63))
def test_nearest_truncation(x, bits):
    assert trunc_nearest(x, bits).tolist() == [(int(v) + 2 ** (bits - 1)) >> bits for v in x]


@given(WORDS, st.integers(1, 63), st.integers(0, 10))
def test_probabilistic_truncation_is_a_neighbour(x, bits, seed):
    up = trunc_probabilistic(x, bits, np.random.default_rng(seed)) - (x >> bits)
    fraction = [int(v) % 2**bits for v in x]
    assert all(u in (0, 1) and (u == 0 or f > 0) for u, f in zip(up, fraction, strict=True))


@pytest.mark.parametrize("bits", [1, 8, 16, 31, 32, 33, 45])
@pytest.mark.parametrize("truncation", ["probabilistic", "nearest"])
def test_truncation_is_unbiased(bits, truncation):
    x = np.random.default_rng(bits).integers(-(2**52), 2**52, 100_000)
    result = apply(lambda b, v: b.trunc(v, bits), x, truncation=truncation, seed=1)
    error = result - x / 2.0**bits
    assert abs(error.mean()) < 0.01 + (0.5**bits / 2 if truncation == "nearest" else 0)
    assert abs(error).max() < 1


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_probability_is_the_fraction(quarter):
    x = np.full(100_000, quarter * 2**14 - 2**16)
    assert abs((apply(lambda b, v: b.trunc(v, 16), x) + 1).mean() - quarter / 4) < 0.01


@pytest.mark.parametrize("block", [1, 2, 3, 6])
def test_a_block_diagonal_matrix_meets_the_last_rows(block):
    rng = np.random.default_rng(block)
    dense, residual = rng.integers(-50, 50, (6, 4)), rng.integers(-50, 50, (6, 5))
    x, blocks = rng.integers(-50, 50, (4, 5)), rng.integers(-50, 50, (6 // block, block, block))
    diagonal = np.zeros((6, 6), dtype=np.int64)
    for i, part in enumerate(blocks):
        diagonal[i * block : (i + 1) * block, i * block : (i + 1) * block] = part
    expected = dense @ x + diagonal @ residual
    given = np.concatenate([dense, blocks.reshape(6, block)], 1)

    def build(b, v):
        weight = b.reshape(b.slice(v, 0, 0, given.size), given.shape)
        return b.block_matmul(weight, b.reshape(b.slice(v, 0, given.size, given.size + 50), (10, 5)), block)

    flat = np.concatenate([given.ravel(), x.ravel(), residual.ravel()])
    assert (apply(build, flat) == expected).all()


def test_the_nearest_variant_is_nearest_in_any_mode_and_seeds_repeat():
    x = np.random.default_rng(0).integers(-(2**40), 2**40, 1000)
    assert (apply(lambda b, v: b.trunc(v, 8, "nearest"), x, seed=3) == trunc_nearest(x, 8)).all()
    runs = [apply(lambda b, v: b.trunc(v, 8), x, seed=seed) for seed in (3, 3, 4)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


def test_a_profile_tells_the_mean_magnitude_of_what_is_truncated():
    """Before the truncation, in the iteration where it is largest; the results are those of any other run."""
    graph, x = unary(lambda b, v: b.trunc(b.trunc(v, 4), 2, "nearest"), (3,)), ints(16, -32, 48)
    assert profile(graph, {"x": x}, {}) == {"r1": 32.0, "r2": 2.0}
    weights = {f"w{i}": encode(np.eye(2) * scale, 16) for i, scale in enumerate((1.0, 2.0, 0.25))}
    (mean,) = profile(loop(), {"x": encode(np.ones((2, 2)), 16)}, weights).values()
    assert mean == pytest.approx((1.5 * 2) * 2**32, rel=1e-3)


# ** overflow **
def product_chain(b, v):
    return b.mul(v, v, bound=1.0)


OVERFLOWING = {
    "add": (lambda b, v: b.add(v, v), 2**62),
    "sub": (lambda b, v: b.sub(b.neg(v), v), 2**62 + 1),
    "mul": (product_chain, 2**32),
    "mul_const": (lambda b, v: b.mul_int(v, 3), 2**62),
    "sum": (lambda b, v: b.sum(v, 0), 2**61),
    "dot": (lambda b, v: b.dot(v, v), 2**31),
    "lt": (lambda b, v: b.lt_zero(v), 2**15),
    "trunc": (lambda b, v: b.trunc(v, 4), 2**62),
}


@pytest.mark.parametrize("op", OVERFLOWING)
def test_overflow_names_layer_and_operation(op):
    function, value = OVERFLOWING[op]
    x = np.full(4, value)
    with pytest.raises(RangeError, match=rf"{op} .*encoder\.layer\.0 \(node_0, gelu\)"):
        apply(function, x, check=True)
    result = run(unary(function), {"x": x}, {}, check=False)
    assert [o.op for o in result.overflows] == [op] and result.overflows[0].layer == "encoder.layer.0"
    small = run(unary(function), {"x": np.full(4, 2**14)}, {})
    assert not small.overflows


def test_block_matmul_overflow_is_found_where_operands_fit():
    x = np.full((2, 2), 2**31)

    def build(b, v):
        return b.block_matmul(b.concat([v, b.slice(v, 1, 0, 1)], 1), b.concat([v, v], 0), 1)

    with pytest.raises(RangeError, match="block_matmul"):
        run(unary(build, (2, 2)), {"x": x}, {})


def test_matmul_overflow_is_found_where_operands_fit():
    x = np.full((2, 2), 2**31)
    with pytest.raises(RangeError, match="matmul"):
        run(unary(lambda b, v: b.matmul(v, v), (2, 2)), {"x": x}, {})


@given(WORDS)
def test_overflow_is_recorded_exactly_when_it_happens(x):
    graph = unary(lambda b, v: b.add(v, v))
    expected = any(not -(2**63) <= 2 * int(v) < 2**63 for v in x)
    assert bool(run(graph, {"x": x}, {}, check=False).overflows) == expected


# ** loops, parameters, traces, ranges **
def weights(count=3):
    return {f"w{i}": np.eye(2, dtype=np.int64).ravel() * (i + 1) * 2**16 for i in range(count)}


def test_loop_reads_one_parameter_per_iteration():
    x = ints(1, 2, 3, 4).reshape(2, 2) * 2**16
    result = run(loop(), {"x": x}, weights(), trace=True)
    expected = ((x / 2**16 + 0.5) * 2 + 0.5) * 3 + 0.5
    assert (result.outputs["y"] / 2**16 == expected).all()
    assert [t.shape for t in result.trace["linear"]] == [(2, 2)] * 3
    assert (result.trace["linear"][0] == x / 2**16 + 0.5).all()


def test_overflow_in_a_loop_names_the_iteration():
    huge = {**weights(), "w1": np.full(4, 2**50)}
    with pytest.raises(RangeError, match=r"iteration 1; at encoder\.layer\.1 "):
        run(loop(), {"x": np.full((2, 2), 2**20)}, huge)


def test_values_above_their_bound_are_reported_not_refused():
    result = run(loop(), {"x": np.full((2, 2), 20 * 2**16)}, weights())
    assert not result.overflows
    use = next(r for r in result.ranges if r.bound == 10.0)
    assert (use.largest, use.ratio) == (20.0, 2.0)
    layers = {(r.layer, r.iteration) for r in result.ranges if r.result_of == "linear"}
    assert layers == {(f"encoder.layer.{i}", i) for i in range(3)}


def test_trace_is_off_by_default():
    assert run(loop(), {"x": np.zeros((2, 2), np.int64)}, weights()).trace == {}


def test_nested_loops():
    inner = Builder(prefix="c")
    v = inner.arg("carried", 0, Builder().input("x", (1,), 0, 1.0, "client").type)
    inner_body = inner.graph([("v", inner.add(v, inner.arg("invariant", 0, v.type)))])
    middle = Builder(prefix="b")
    v = middle.arg("carried", 0, v.type)
    (taken,) = middle.repeat([v], [v], inner_body, 2)
    outer = Builder()
    (y,) = outer.repeat([outer.input("x", (1,), 0, 1.0, "client")], [], middle.graph([("v", taken)]), 3)
    assert run(outputs(outer, y=y), {"x": ints(5)}, {}).outputs["y"].tolist() == [5 * 3**3]


# ** what is refused **
def test_rescale_is_refused():
    with pytest.raises(InternalError, match="truncation pass"):
        run(loop(final=False), {"x": np.zeros((2, 2), np.int64)}, weights())


@pytest.mark.parametrize(
    "inputs, params, message",
    [
        ({}, weights(), "input 'x' is missing"),
        ({"x": np.zeros(4, np.int64)}, weights(), r"input 'x' has shape \(4,\)"),
        ({"x": np.zeros((2, 2))}, weights(), "float64, not int64"),
        ({"x": np.zeros((2, 2), np.int64)}, weights(2), "param 'w2' is missing"),
        ({"x": np.zeros((2, 2), np.int64)}, {**weights(), "w0": ints(1)}, "param 'w0' has shape"),
    ],
)
def test_wrong_data_is_refused(inputs, params, message):
    with pytest.raises(InputError, match=message):
        run(loop(), inputs, params)


def test_other_rings_and_modes_are_refused():
    with pytest.raises(InternalError, match="64-bit ring"):
        run(unary(lambda b, v: v, ring_bits=128), {"x": ints(1, 2, 3, 4)}, {})
    with pytest.raises(InternalError, match="unknown truncation"):
        run(unary(lambda b, v: v), {"x": ints(1, 2, 3, 4)}, {}, truncation="floor")


def test_message_without_an_origin():
    b = Builder()
    b.origin = RingOrigin()
    x = b.input("x", (1,), 0, 1.0, "client")
    with pytest.raises(RangeError, match="the model"):
        run(outputs(b, y=b.add(x, x)), {"x": ints(2**62)}, {})
