"""The emulator defines what a ring program means; the emitted source means the same, on the stand-in and on MP-SPDZ."""

import random
from dataclasses import replace
from pathlib import Path

import mixed_operands
import numpy as np
import primitives
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mp_spdz_here import HOME, needs_mp_spdz
from one_request import run_job
from primitives import secret
from random_programs import random_graph
from ring_cases import assert_same, for_protocol, make, prepare, run_emulator, run_standin

from mpcc.backends.emulator import semantics
from mpcc.compiler.cost import estimate
from mpcc.compiler.protocols import PROTOCOLS

PROGRAMS = primitives.PROGRAMS | mixed_operands.PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_standin(name, seed):
    case = make(PROGRAMS[name], seed=seed)
    assert_same(run_standin(case), run_emulator(case))


@pytest.mark.parametrize("name", ["matmuls", "publics", "loops"])
def test_standin_where_public_products_are_local(name):
    case = for_protocol(make(PROGRAMS[name]), "semi2k")
    assert_same(run_standin(case), run_emulator(case))


def test_a_public_product_sends_nothing_where_it_is_local():
    """The whole weight of a frozen layer, which two parties alone would pay for by the scalar product."""

    def build(b):
        return {"y": b.matmul(secret(b, shape=(3, 4), bound=10.0), b.param(("c",), (4, 5), 8, 10.0, public=True))}

    case = make(build)
    for protocol, local in (("semi2k", True), ("hemi", True), ("dealer-ring", True), ("ring", False)):
        assert ("public_matmul(" in for_protocol(case, protocol).source.text.split("def infer")[1]) is local
        assert (estimate(case.graph, protocol).bytes_online == 0) is local


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(1, 14), st.integers(0, 99))
def test_standin_on_random_programs(data, steps, seed):
    case = prepare(random_graph(lambda options: data.draw(st.sampled_from(options)), steps), seed=seed)
    assert_same(run_standin(case), run_emulator(case))


@needs_mp_spdz
@pytest.mark.parametrize("name", PROGRAMS)
def test_mp_spdz(name):
    case = make(PROGRAMS[name])
    assert_same(run_job(case.job).outputs, run_emulator(case))


@needs_mp_spdz
@pytest.mark.parametrize("seed", range(12))
def test_mp_spdz_on_random_programs(seed):
    case = prepare(random_graph(random.Random(seed).choice, 16), seed=seed)
    expected = run_emulator(case)
    assert_same(run_standin(case), expected)
    assert_same(run_job(case.job).outputs, expected)


def assert_within_one(case, outputs):
    """Every output is one of the two integers around the exact quotient: floor or floor + 1."""
    graph = case.graph
    for name, value in outputs.items():
        node = next(graph[n.inputs[0]] for n in graph if n.op == "reveal" and n.str_attr("name") == name)
        source = graph[node.inputs[0]]
        if node.op != "trunc" or source.op != "input":
            continue
        exact = case.inputs[source.str_attr("name")].ravel()
        bits = node.int_attr("bits")
        up = value - (exact >> np.int64(bits))
        assert ((up == 0) | (up == 1)).all(), name
        assert (up[exact & np.int64((1 << bits) - 1) == 0] == 0).all(), f"{name}: a multiple is exact"
        nearest = semantics.trunc_nearest(exact, bits)
        assert abs(value - nearest).max() <= 1


def test_standin_rounds_either_way():
    case = make(primitives.truncations, truncation="probabilistic")
    assert_within_one(case, run_standin(case, "probabilistic"))


@needs_mp_spdz
def test_mp_spdz_rounds_either_way():
    case = make(primitives.truncations, truncation="probabilistic")
    assert_within_one(case, run_job(case.job).outputs)


@needs_mp_spdz
@pytest.mark.parametrize("name", PROGRAMS)
def test_mp_spdz_with_a_dealer(name):
    """The same source, two parties and a dealer (nearest truncation only: there is no other in this protocol)."""
    if not (Path(HOME) / PROTOCOLS["dealer-ring"].binary).exists():
        pytest.skip("this MP-SPDZ has no dealer-ring-party.x")
    case = make(PROGRAMS[name])
    assert_same(run_job(replace(case.job, protocol="dealer-ring")).outputs, run_emulator(case))
