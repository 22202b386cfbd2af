"""Truncations that a later one takes along: fewer of them, the same values, and nothing else sees another scale."""

from __future__ import annotations

import numpy as np
import pytest
from harness import MODES, run_ring

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType
from mpcc.compiler.ring.text import print_ring
from mpcc.compiler.ring.verify import verify
from mpcc.passes.ring.dead_code import ring_dead_code
from mpcc.passes.ring.defer_rescales import defer_rescales
from mpcc.passes.ring.place_truncations import place_truncations


def down(b, x):
    return b.rescale(x, 13)


def product_of_products(b, x, y):
    """Both factors keep the bits of their own products: one truncation serves three."""
    return down(b, b.mul(down(b, b.mul(x, x)), down(b, b.mul(x, y))))


def squarings(b, x, y):
    """Squared three times: not all of it fits the ring, the second result is truncated."""
    for _ in range(3):
        x = down(b, b.mul(x, x, bound=1.0))
    return x


def past_a_sum(b, x, y):
    """What is added on the way is lifted, for free."""
    inner = down(b, b.mul(x, y))
    return down(b, b.mul(b.add(inner, x), y))


def compared(b, x, y):
    """A comparison would have to look at more bits: nothing is deferred."""
    inner = down(b, b.mul(x, y))
    return down(b, b.mul(inner, b.lt_zero(inner)))


def revealed(b, x, y):
    """What leaves has the scale that was asked for."""
    return down(b, b.mul(x, y))


# case -> (function, truncations as placed without the pass, with it)
CASES = {
    "product of products": (product_of_products, 3, 1),
    "squarings": (squarings, 3, 2),
    "past a sum": (past_a_sum, 2, 1),
    "compared": (compared, 1, 1),
    "revealed": (revealed, 1, 1),
}


def program(case):
    b = Builder()
    x, y = (b.input(name, (2, 3), 13, 1.0, "client") for name in "xy")
    return b.graph([("out", b.reveal(CASES[case][0](b, x, y), "out"))])


def truncations(graph):
    return [n for n, _ in graph.walk() if n.op == "trunc"]


def placed(graph):
    result = ring_dead_code(place_truncations(graph))
    verify(result, final=True)
    return result


@pytest.mark.parametrize("case", CASES)
def test_number_of_truncations(case):
    _, before, after = CASES[case]
    assert len(truncations(placed(program(case)))) == before
    assert len(truncations(placed(defer_rescales(program(case))))) == after


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_values_stay_and_are_no_less_exact(case, mode):
    rng = np.random.default_rng(1)
    given = {name: np.rint(rng.uniform(-1, 1, (2, 3)) * 2**13) / 2**13 for name in "xy"}
    plain, deferred = placed(program(case)), placed(defer_rescales(program(case)))
    out = plain[plain.outputs[0][1]].type
    assert deferred[deferred.outputs[0][1]].type.frac_bits == out.frac_bits
    a, b = (run_ring(ring, given, {}, mode)["out"] for ring in (plain, deferred))
    assert np.abs(a - b).max() <= 16 * 2.0**-13


def test_only_those_that_are_named_take_part():
    ring = program("product of products")
    names = [n.name for n in ring if n.op == "rescale"]
    assert print_ring(defer_rescales(ring, set())) == print_ring(ring)
    assert len(truncations(placed(defer_rescales(ring, {names[0], names[2]})))) == 2
    assert len(truncations(placed(defer_rescales(ring, {names[0], names[1]})))) == 3, "the last one takes nothing along"


def test_a_carried_value_keeps_its_scale():
    inner = Builder(prefix="b")
    x = inner.arg("carried", 0, RingType((2, 2), 13, 1.0))
    y = inner.rescale(inner.mul(x, inner.rescale(inner.mul(x, x), 13)), 13, bound=1.0)
    outer = Builder()
    (taken,) = outer.repeat([outer.input("x", (2, 2), 13, 1.0, "client")], [], inner.graph([("x", y)]), 2)
    ring = outer.graph([("out", outer.reveal(taken, "out"))])
    deferred = placed(defer_rescales(ring))
    assert len(truncations(deferred)) == 1
    got = run_ring(deferred, {"x": np.full((2, 2), 0.75)}, {}, "nearest")["out"]
    assert np.abs(got - 0.75**9).max() < 1e-3
