"""What MP-SPDZ counts against what the cost model promises: bytes within half a percent, for each party."""

import primitives
import pytest
from mp_spdz_here import needs_mp_spdz
from one_request import run_job
from ring_cases import make

from mpcc.compiler.cost import estimate

SHAPE = (4, 8, 40)  # 1280 elements: bits are packed in whole words


def comparisons(b):
    widths = (3, 8, 16, 17, 32, 33, 40)
    return {f"y{n}": b.lt_zero(b.input(f"x{n}", SHAPE, 0, 2.0 ** (n - 1) - 1, "client")) for n in widths}


def truncations(b):
    return {f"y{n}": b.rescale(b.input(f"x{n}", SHAPE, 40, 1000.0, "client"), 40 - n) for n in (1, 8, 16, 32)}


def network(b):
    """A small layer: product, truncation, comparison, selection, product."""
    x = b.input("x", (64, 20), 16, 4.0, "client")
    w = b.param(("w",), (20, 40), 16, 0.1, public=False)
    h = b.rescale(b.matmul(x, w), 16)
    relu = b.select(b.lt_zero(h), b.const(0.0, h.type.shape, 16), h)
    return {"y": b.rescale(b.dot(relu, relu), 16), "z": b.rescale(b.mul(relu, h), 16)}


PROGRAMS = {"comparisons": comparisons, "truncations": truncations, "network": network}


def assert_bytes(measured, cost):
    assert measured.bytes_by_party == pytest.approx(cost.bytes_by_party, rel=0.005)
    assert measured.input_bytes == cost.input_bytes
    assert measured.provisioning_bytes == cost.provisioning_bytes


@needs_mp_spdz
@pytest.mark.parametrize("truncation", ["nearest", "probabilistic"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_bytes(name, truncation):
    case = make(PROGRAMS[name], truncation=truncation)
    measured, cost = run_job(case.job).measured, estimate(case.graph, "ring")
    assert_bytes(measured, cost)
    assert max(measured.rounds_by_party) >= cost.rounds  # groups that the source separates count again


@needs_mp_spdz
@pytest.mark.parametrize("name", primitives.PROGRAMS)
def test_bytes_of_small_programs(name):
    case = make(primitives.PROGRAMS[name])
    assert_bytes(run_job(case.job).measured, estimate(case.graph, "ring"))
