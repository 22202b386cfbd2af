"""The passes over ring IR: what they print before and after, how many truncations they save, and that values stay."""

from __future__ import annotations

import numpy as np
import pytest
from harness import MODES, run_ring, scheduled

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType
from mpcc.compiler.ring.text import print_ring
from mpcc.compiler.ring.verify import verify
from mpcc.compiler.types import attributes
from mpcc.passes.ring.absorb_factors import absorb_factors
from mpcc.passes.ring.dead_code import ring_dead_code
from mpcc.passes.ring.merge_rescales import merge_rescales
from mpcc.passes.ring.narrow_bounds import narrow_bounds
from mpcc.passes.ring.place_truncations import place_truncations

TENSORS = {}


def product(b, x, y):
    return b.rescale(b.mul(x, y), 16)


def sum_of_products(b, x, y):
    """Two products, each brought down, then added: one truncation serves both."""
    return b.add(product(b, x, y), product(b, x, x))


def difference_of_scales(b, x, y):
    """Products at different scales."""
    return b.sub(b.rescale(b.mul_int(b.mul(x, y), 3, 4), 16), product(b, y, y))


def reduced(b, x, y):
    """A product brought down and summed: fewer elements are truncated after the sum."""
    return b.sum(product(b, x, y), 1)


def sliced(b, x, y):
    return b.slice(product(b, x, y), 0, 1, 2)


def scaled(b, x, y):
    """A factor after a rescale moves in front of it."""
    return b.rescale(b.mul_int(product(b, x, y), 5, 3), 16)


def chained(b, x, y):
    return b.rescale(b.rescale(b.mul(b.mul(x, y), y), 30), 16)


def read_twice(b, x, y):
    """A rescale with two readers stays where it is: moving it would double the work."""
    p = product(b, x, y)
    return b.add(b.mul_int(p, 3), b.rescale(b.mul(p, y), 16))


def too_wide(b, x, y):
    """The sum of the wide integers would not fit the ring."""
    left, right = (b.mul_int(p, 2**23) for p in (b.mul(x, y), b.mul(x, x)))
    return b.add(b.rescale(left, 16), b.rescale(right, 16))


# case -> (function, truncations without merging, with merging)
CASES = {
    "sum of products": (sum_of_products, 2, 1),
    "difference of scales": (difference_of_scales, 2, 1),
    "reduced": (reduced, 1, 1),
    "sliced": (sliced, 1, 1),
    "scaled": (scaled, 2, 1),
    "chained": (chained, 2, 1),
    "read twice": (read_twice, 2, 2),
    "too wide": (too_wide, 2, 2),
}


def program(case):
    b = Builder()
    x, y = (b.input(name, (2, 6), 16, 8.0, "client") for name in "xy")
    return b.graph([("out", b.reveal(CASES[case][0](b, x, y), "out"))])


def values():
    rng = np.random.default_rng(3)
    return {name: rng.uniform(-8, 8, (2, 6)) for name in "xy"}


def truncations(graph):
    return [n for n, _ in graph.walk() if n.op == "trunc"]


def unmerged(case):
    return ring_dead_code(place_truncations(program(case)))


@pytest.mark.parametrize("case", CASES)
def test_number_of_truncations(case):
    _, before, after = CASES[case]
    assert len(truncations(unmerged(case))) == before
    assert len(truncations(scheduled(program(case)))) == after


@pytest.mark.parametrize("case", ["reduced", "sliced"])
def test_fewer_elements_are_truncated(case):
    before, after = truncations(unmerged(case)), truncations(scheduled(program(case)))
    assert sum(n.type.elements for n in after) < sum(n.type.elements for n in before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_values_stay_within_ulps(case, mode):
    plain = unmerged(case)
    verify(plain, final=True)
    merged = scheduled(program(case))
    ulp = 2.0 ** -merged[merged.outputs[0][1]].type.frac_bits
    a, b = (run_ring(ring, values(), TENSORS, mode)["out"] for ring in (plain, merged))
    # a truncation inside is multiplied by what follows it: by 8 at most, and by 6 summands
    assert np.abs(a - b).max() <= 20 * max(ulp, 2.0**-16)


@pytest.mark.parametrize("case", CASES)
def test_golden(case, golden):
    ring = program(case)
    merged = ring_dead_code(merge_rescales(merge_rescales(ring)))
    steps = {"before": ring, "after merge_rescales": merged, "after place_truncations": place_truncations(merged)}
    text = "".join(f"# {title}\n{print_ring(graph)}\n" for title, graph in steps.items())
    golden(f"schedule_{case.replace(' ', '_')}.txt", f"# {CASES[case][0].__doc__ or case}\n{text}")


def with_bias(readers=1):
    b = Builder()
    x = b.input("x", (2, 6), 16, 8.0, "client")
    bias = b.param(("bias",), (2, 6), 16, 4.0, public=False)
    y = b.add(b.mul(x, x), b.rescale(bias, 32))
    y = b.rescale(y, 16)
    for _ in range(readers - 1):
        y = b.add(y, bias)
    return b.graph([("out", b.reveal(y, "out"))])


def test_a_bias_is_supplied_at_the_scale_of_the_product(golden):
    before = place_truncations(with_bias())
    after = ring_dead_code(absorb_factors(before))
    verify(after, final=True)
    (bias,) = (n for n in after if n.op == "param")
    assert bias.type.frac_bits == 32
    assert [n.op for n in after].count("mul_const") == [n.op for n in before].count("mul_const") - 1
    golden("absorb_factors.txt", f"# before\n{print_ring(before)}\n# after\n{print_ring(after)}")


def test_a_bias_that_is_read_elsewhere_keeps_its_scale():
    after = absorb_factors(place_truncations(with_bias(readers=2)))
    assert {n.type.frac_bits for n in after if n.op == "param"} == {16}


@pytest.mark.parametrize(("variant", "width"), [("safe", {63}), ("nearest", range(20, 63))])
def test_variants_and_widths(variant, width):
    placed = truncations(place_truncations(program("sum of products"), variant=variant))
    assert {n.attr("variant") for n in placed} == {variant}
    assert all(n.int_attr("width") in width for n in placed)


def test_dead_code_keeps_inputs():
    b = Builder()
    x, y = (b.input(name, (2,), 16, 1.0, "client") for name in "xy")
    b.mul(x, y)
    graph = ring_dead_code(b.graph([("out", b.reveal(x, "out"))]))
    assert [n.op for n in graph] == ["input", "input", "reveal"]


def test_passes_reach_into_loops():
    inner = Builder(prefix="b")
    x = inner.arg("carried", 0, RingType((2, 2), 16, 8.0))
    y = inner.add(inner.rescale(inner.mul(x, x), 16), inner.rescale(inner.mul(x, x), 16), bound=8.0)
    outer = Builder()
    given = outer.input("x", (2, 2), 16, 0.5, "client")
    (taken,) = outer.repeat([given], [], inner.graph([("x", y)]), 3)
    ring = outer.graph([("out", outer.reveal(taken, "out"))])
    verify(ring)
    assert len(truncations(place_truncations(ring))) == 2
    done = scheduled(ring)
    assert len(truncations(done)) == 1
    got = run_ring(done, {"x": np.full((2, 2), 0.5)}, {}, "nearest")["out"]
    assert np.abs(got - 0.5).max() < 1e-4  # 2 * 0.5^2 = 0.5


def test_bounds_are_narrowed_behind_a_tighter_operand():
    b = Builder()
    x = b.input("x", (2,), 16, 1.0, "client")
    doubled = b.mul_int(x, 2)
    graph = b.graph([("out", b.reveal(doubled, "out"))])
    tight = graph.nodes[0].__class__(
        **{**vars(graph.nodes[0]), "type": RingType((2,), 16, 0.5), "attrs": attributes(name="x", role="client")}
    )
    narrowed = narrow_bounds(type(graph)((tight, *graph.nodes[1:]), graph.outputs, 64))
    assert narrowed[doubled.name].type.bound == 1.0
    verify(narrowed)
