"""Bounds shrink with those of the operands, and only what changed is looked at."""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.verify import verify
from mpcc.passes.ring.narrow_bounds import narrow_bounds


def program():
    b = Builder()
    x, y = b.input("x", (4,), 8, 8.0, "client"), b.input("y", (4,), 8, 8.0, "client")
    total, other = b.add(x, x), b.mul_int(y, 2)
    return b.graph([("a", b.reveal(b.mul(total, total), "a")), ("b", b.reveal(other, "b"))])


def tightened(graph, name, bound):
    """As a pass leaves it: one value has a narrower bound, what reads it has not."""
    return graph.with_nodes(n.with_type(n.type.within(bound)) if n.name == name else n for n in graph)


def test_bounds_follow_the_operands():
    graph = tightened(program(), "r0", 1.0)
    narrow = narrow_bounds(graph)
    verify(narrow)
    assert [n.type.bound for n in narrow if n.op in ("add", "mul", "mul_const", "reveal")] == [
        2.0,
        16.0,
        4.0,
        4.0,
        16.0,
    ]


def test_what_did_not_change_is_the_same_object():
    known = program()
    narrow = narrow_bounds(tightened(known, "r0", 1.0), known)
    assert narrow == narrow_bounds(tightened(known, "r0", 1.0))
    assert [n.name for n in narrow if n is not known[n.name]] == [
        n.name for n in narrow if n.type != known[n.name].type
    ]
    assert narrow_bounds(known, known) is known


def test_bounds_never_grow():
    graph = program()
    wider = graph.with_nodes(replace(n, type=replace(n.type, bound=100.0)) if n.name == "r0" else n for n in graph)
    assert narrow_bounds(wider, graph)["r2"].type.bound == graph["r2"].type.bound
