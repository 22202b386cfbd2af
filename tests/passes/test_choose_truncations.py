"""Local truncations: within the budget, cheapest first, and the program still computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_ring, scheduled

from mpcc.compiler.cost import estimate
from mpcc.compiler.protocols import LOCAL_WIDTH, TRUNC_ERROR
from mpcc.compiler.ring.build import Builder
from mpcc.passes.ring.choose_truncations import MAGNITUDE_MARGIN, choose_truncations

SMALL, LARGE = (64,), (4096,)


def program():
    """One truncation of few large values, one of many small ones."""
    b = Builder()
    x, y = b.input("x", LARGE, 10, 1.0, "client"), b.input("y", SMALL, 20, 100.0, "client")
    small, large = b.rescale(b.mul(x, x), 10), b.rescale(b.mul(y, y), 20)
    return scheduled(b.graph([("small", b.reveal(small, "small")), ("large", b.reveal(large, "large"))]))


def truncations(ring):
    return {n.type.elements: n for n, _ in ring.walk() if n.op == "trunc"}


def magnitudes(ring):
    return {n.name: 2.0**18 if n.type.elements == LARGE[0] else 2.0**50 for n in truncations(ring).values()}


def probability(elements, mean):
    return elements * mean * MAGNITUDE_MARGIN / 2.0**64


@pytest.mark.parametrize(
    ("budget", "local"), [(2.0**-60, set()), (2.0**-30, set(LARGE)), (2.0**-4, set(LARGE + SMALL))]
)
def test_budget_is_kept_and_used(budget, local):
    ring = program()
    chosen, choice = choose_truncations(ring, magnitudes(ring), budget)
    assert {size for size, n in truncations(chosen).items() if n.attr("variant") == "local"} == local
    assert choice.failure_probability <= budget
    assert choice.local_elements == sum(local) and choice.elements == LARGE[0] + SMALL[0]
    expected = sum(probability(size, 2.0**18 if size == LARGE[0] else 2.0**50) for size in local)
    assert choice.failure_probability == pytest.approx(expected)


def test_width_selects_the_variant_on_mp_spdz():
    ring = program()
    chosen, _ = choose_truncations(ring, magnitudes(ring), 2.0**-4)
    assert all(n.attr("width") == LOCAL_WIDTH for n in truncations(chosen).values())
    assert LOCAL_WIDTH + TRUNC_ERROR <= 64 < min(n.attr("width") for n in truncations(ring).values()) + TRUNC_ERROR


def test_unknown_magnitudes_count_at_their_bound():
    ring = program()
    _, choice = choose_truncations(ring, {}, 1.0)
    assert choice.failure_probability >= LARGE[0] * 2.0**20 / 2.0**64


def test_cheaper_and_the_same_numbers():
    ring = program()
    chosen, _ = choose_truncations(ring, magnitudes(ring), 2.0**-4)
    assert estimate(ring, "ring").bytes_online - estimate(chosen, "ring").bytes_online == 24 * (LARGE[0] + SMALL[0])
    rng = np.random.default_rng(0)
    values = {"x": rng.uniform(-1, 1, LARGE), "y": rng.uniform(-100, 100, SMALL)}
    for name, result in run_ring(chosen, values, {}, "nearest").items():
        np.testing.assert_array_equal(result, run_ring(ring, values, {}, "nearest")[name])
