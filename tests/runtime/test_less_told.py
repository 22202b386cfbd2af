"""The position of the largest entry and rounding to nearest, on ring programs: NumPy's numbers, and what they cost."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mp_spdz_here import HOME, needs_mp_spdz
from one_request import run_job
from primitives import secret
from ring_cases import assert_same, for_protocol, make, run_emulator, run_standin

from mpcc.backends.emulator import emulator
from mpcc.compiler.approximations.argmax import argmax
from mpcc.compiler.cost import estimate
from mpcc.compiler.protocols import PROTOCOLS
from mpcc.compiler.ring.build import Builder

FEW = (-(2**20), -3, 0, 5)  # so few values that most rows hold their largest one several times


def label(shape):
    return lambda b: {"y": b.reshape(argmax(b, secret(b, shape=shape, frac_bits=13, bound=2.0**12)), shape[:-1])}


def rounded(b):
    return {"y": b.trunc(secret(b, shape=(40,), frac_bits=13, bound=2.0**12), 10, "nearest")}


def with_values(case, values):
    """The same program on rows of these."""
    (name,) = case.inputs
    shape = case.inputs[name].shape
    picked = np.random.default_rng(1).choice(np.array(values, np.int64), shape)
    return replace(case, inputs={name: picked})


def positions(case):
    (x,) = case.inputs.values()
    return {"y": x.argmax(-1).ravel()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FEW), min_size=2, max_size=70))
def test_the_first_of_equal_ones(row):
    """Any number of classes, any ties."""
    b = Builder()
    graph = b.graph([("y", b.reveal(argmax(b, b.input("x", (1, len(row)), 13, 2.0**12, "client")), "y"))])
    found = emulator.run(graph, {"x": np.array([row], np.int64)}, {}).outputs["y"]
    assert found.ravel().tolist() == [row.index(max(row))]


@pytest.mark.parametrize("shape", [(3, 2), (2, 37), (1, 1000), (2, 3, 5)])
@pytest.mark.parametrize("values", [None, FEW], ids=["different", "equal"])
def test_the_source_finds_the_position(shape, values):
    case = make(label(shape), truncation="probabilistic")
    case = case if values is None else with_values(case, values)
    assert_same(run_standin(case, "probabilistic"), positions(case))


def test_a_vocabulary_is_a_few_lines():
    """Vectors, whatever their length: 16 levels for 50,000 entries, each entry compared at most once."""
    case = make(label((1, 50_000)), truncation="probabilistic")
    assert len(case.source.text) < len(make(label((1, 2)), truncation="probabilistic").source.text) + 12_000
    assert_same(run_emulator(case, "probabilistic"), positions(case))


def test_rounding_in_a_program_with_probabilistic_truncations():
    """To nearest on every engine: what stands below the unit has no influence but by the rounding."""
    case = make(rounded, truncation="probabilistic")
    (x,) = case.inputs.values()
    assert_same(run_standin(case, "probabilistic"), {"y": (x + 512) >> 10})
    assert_same(run_emulator(case, "probabilistic"), {"y": (x + 512) >> 10})


@needs_mp_spdz
@pytest.mark.parametrize("protocol", ["ring", "dealer-ring", "semi2k", "ps-rep-ring"])
@pytest.mark.parametrize(
    "build",
    [label((3, 2)), label((2, 37)), label((1, 1500)), rounded],
    ids=["2 classes", "37 classes", "1500 classes", "rounded"],
)
def test_mp_spdz(build, protocol):
    """The numbers, and what they cost: on ring to the byte; of others the estimate is about programs of some size."""
    if not os.access(Path(HOME) / PROTOCOLS[protocol].binary, os.X_OK):
        pytest.skip("the party program is not built")
    truncation = PROTOCOLS[protocol].truncation
    case = for_protocol(make(build, truncation=truncation), protocol, truncation)
    result = run_job(replace(case.job, protocol=protocol))
    assert_same(result.outputs, run_standin(case, truncation))
    cost = estimate(case.graph, protocol)
    if protocol == "ring":
        assert result.measured.bytes_by_party == cost.bytes_by_party
    elif max(i.size for i in case.inputs.values()) >= 1500:
        assert result.measured.bytes_online == pytest.approx(cost.bytes_online, rel=0.05)
    assert result.measured.input_bytes == cost.input_bytes
