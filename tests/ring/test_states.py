"""States stay in a session: what one request stores, later ones load, on the emulator and in the emitted source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import StandinError, execute

from mpcc.backends.emulator import run
from mpcc.backends.mp_spdz.emitter import emit_together
from mpcc.backends.mp_spdz.weights import tensor_order
from mpcc.compiler.errors import InputError, InternalError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.text import parse_ring, print_ring
from mpcc.compiler.ring.verify import verify
from mpcc.runtime.mp_spdz.counters import NO_LIMIT

ROWS = 6


def first():
    """Stores x w at the beginning of the cache, and reveals x w2."""
    b = Builder()
    x = b.input("x", (2, 3), 8, 4.0, "client")
    w, w2 = (b.param((name,), (3, 3), 8, 2.0, public=False) for name in ("w", "w2"))
    z = b.matmul(x, w2)
    kept = b.store_state(b.matmul(x, w), b.const(0, (1,), 0), "cache", ROWS)
    return b.graph([("z", b.reveal(z, "z")), ("cache", kept)])


def later():
    """Reveals the sum of the cache's first rows plus x w, and stores x w at a public position."""
    b = Builder()
    x, at = b.input("x", (2, 3), 8, 4.0, "client"), b.input("at", (1,), 0, 100.0, "public")
    w = b.param(("w",), (3, 3), 8, 2.0, public=False)
    y = b.matmul(x, w)
    old = b.expand(b.sum(b.load_state("cache", (4, 3), 16, 40.0, ROWS), 0), (2, 3))
    return b.graph([("y", b.reveal(b.add(old, y), "y")), ("cache", b.store_state(y, at, "cache", ROWS))])


WEIGHTS = {n: np.random.default_rng(i).integers(-500, 500, (3, 3)) for i, n in enumerate(("w", "w2"))}


def emulated(requests, graphs):
    states, answers = {}, []
    for kind, inputs in requests:
        result = run(graphs[kind], inputs, WEIGHTS, states=states)
        states = result.states
        answers += [value.ravel().tolist() for value in result.outputs.values()]
    return answers


def streams(requests, source):
    """The streams of both owners."""
    client = [
        [kind + 1, *np.concatenate([inputs[n].ravel() for n in source.entries[kind].inputs])]
        for kind, inputs in requests
    ]
    provider = [WEIGHTS[name].ravel() for name, _, _ in tensor_order(source.entries[0].layout.private)]
    most = [NO_LIMIT]  # requests of the session, for each party, and the provider's for all
    return {0: np.array([*most, *np.concatenate(client), 0]), 1: np.concatenate([*provider, most, most])}


def on_standin(requests, graphs):
    source = emit_together(graphs, protocol="ring", truncation="probabilistic")
    answers = execute(source.text, args=("serve",), inputs=streams(requests, source)).private[0]
    assert [a.tolist() for a in answers[1::2]] == [[0]] * len(requests)
    return [a.tolist() for a in answers[::2]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, ROWS - 2), st.integers(0, 99)), min_size=1, max_size=5))
def test_requests_of_two_programs_see_one_state(requests):
    made = []
    for kind, at, seed in requests:
        x = np.random.default_rng(seed).integers(-900, 900, (2, 3))
        made.append((kind, {"x": x} if kind == 0 else {"x": x, "at": np.array([at])}))
    graphs = [first(), later()]
    for graph in graphs:
        verify(graph, final=True)
        assert parse_ring(print_ring(graph)) == graph
    assert on_standin(made, graphs) == emulated(made, graphs)


@pytest.mark.parametrize("at", [-1, ROWS - 1, 2**40])
def test_a_position_outside_the_state_is_refused(at):
    request = [(1, {"x": np.zeros((2, 3), np.int64), "at": np.array([at])})]
    graphs = [first(), later()]
    with pytest.raises(InputError, match="are not within the 6 rows"):
        emulated(request, graphs)
    with pytest.raises(StandinError, match="a position outside of a state"):
        on_standin(request, graphs)


def test_weights_of_several_programs_stand_once():
    source = emit_together([first(), later()], protocol="ring", truncation="probabilistic")
    slots = [entry.layout.private.slots.values() for entry in source.entries]
    assert [{s.tensors[0]: s.base for s in part} for part in slots] == [{"w": 0, "w2": 9}, {"w": 0}]
    assert {entry.layout.private.elements for entry in source.entries} == {18}


def broken(change):
    b = Builder()
    x, at = b.input("x", (2, 3), 8, 4.0, "client"), b.input("at", (1,), 0, 100.0, "public")
    change(b, x, at)
    return b.graph([])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b, x, at: b.store_state(x, x, "s", 6), "not one public whole number"),
        (lambda b, x, at: b.store_state(x, b.mul_int(at, 1, 3), "s", 6), "not one public whole number"),
        (lambda b, x, at: b.store_state(x, at, "s", 1), "does not fit a state of 1 rows"),
        (lambda b, x, at: b.load_state("s", (7, 3), 8, 1.0, 6), "none of a state of 6 rows"),
    ],
)
def test_what_breaks_a_rule_of_states(change, message):
    with pytest.raises(InternalError, match=message):
        broken(change)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b, x, at: (b.store_state(x, at, "s", 6), b.load_state("s", (6, 4), 8, 9.0)), "elsewhere"),
        (lambda b, x, at: (b.store_state(x, at, "s", 6), b.load_state("s", (6, 3), 9, 9.0)), "elsewhere"),
        (lambda b, x, at: (b.store_state(x, at, "s", 6), b.load_state("s", (6, 3), 8, 2.0)), "is read as up to 2"),
        (lambda b, x, at: b.load_state("", (6, 3), 8, 2.0), "has no name"),
    ],
)
def test_what_the_verifier_says_of_states(change, message):
    with pytest.raises(InternalError, match=message):
        verify(broken(change))
