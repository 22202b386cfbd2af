"""One row per primitive, and builder, verifier and cost model read all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ring_programs import replace_node

from mpcc.compiler.cost.protocols import PRICES
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph, RingType
from mpcc.compiler.ring.result_types import LAYOUTS, VARIANTS
from mpcc.compiler.ring.rules import PRIMITIVES, price_key
from mpcc.compiler.ring.text import parse_ring, print_ring
from mpcc.compiler.ring.verify import verify


def _secret(b, shape=(2, 4)):
    return b.input(f"x{len(b.nodes)}", shape, 8, 4.0, "client")


def _loop(b):
    inner = Builder(prefix="b")
    x = inner.arg("carried", 0, RingType((2, 4), 8, 4.0))
    w = inner.param(("w0", "w1"), (2, 4), 8, 1.0, public=False)
    bound = inner.rescale(inner.add(x, w), 8, bound=4.0)
    return b.repeat([_secret(b)], [], inner.graph([("x", bound)]), 2)[0]


# a program of each operation, by the builder's method
BUILT = {
    "input": _secret,
    "param": lambda b: b.param(("w",), (2, 4), 8, 1.0, public=False),
    "const": lambda b: b.const(-1.5, (2, 4), 8),
    "arg": _loop,
    "load_state": lambda b: b.load_state("cache", (2, 4), 8, 4.0, 6),
    "store_state": lambda b: b.store_state(_secret(b), b.const(3, (1,), 0), "cache", 6),
    "add": lambda b: b.add(_secret(b), b.const(1.0, (2, 4), 8)),
    "sub": lambda b: b.sub(_secret(b), _secret(b), bound=3.0),
    "mul_const": lambda b: b.scale(_secret(b), 0.3, 10),
    "sum": lambda b: b.sum(_secret(b), 1),
    "layout": lambda b: b.concat([b.expand(b.slice(b.permute(_secret(b), (1, 0)), 0, 1, 2), (2, 2))] * 2, 1),
    "mul": lambda b: b.mul(_secret(b), _secret(b)),
    "dot": lambda b: b.dot(_secret(b), _secret(b)),
    "matmul": lambda b: b.matmul(_secret(b), b.transpose(_secret(b))),
    "block_matmul": lambda b: b.block_matmul(_secret(b, (4, 5)), _secret(b, (7, 3)), 2),
    "trunc": lambda b: b.trunc(b.trunc(b.trunc(_secret(b), 2, "nearest"), 2, "local"), 2),
    "rescale": lambda b: b.rescale(_secret(b), 4),
    "lt": lambda b: b.lt_zero(_secret(b)),
    "select": lambda b: b.select(b.lt_zero(_secret(b)), _secret(b), _secret(b)),
    "reveal": lambda b: b.reveal(_secret(b), "other"),
    "repeat": _loop,
    "take": _loop,
}


def build(op) -> RingGraph:
    b = Builder()
    return b.graph([("y", b.reveal(BUILT[op](b), "y"))])


def nodes_of(graph, op):
    return [n for n, _ in graph.walk() if n.op == op]


@pytest.mark.parametrize("op", PRIMITIVES)
def test_builder_and_verifier_agree(op):
    graph = build(op)
    verify(graph)
    assert nodes_of(graph, op)
    assert parse_ring(print_ring(graph)) == graph


@pytest.mark.parametrize("op", sorted(set(PRIMITIVES) - {"arg"}))
def test_the_verifier_rejects_another_type(op):
    """Every rule says what the type is: a shape of one dimension more is none."""
    graph = build(op)
    node = next(n for n in graph if n.op == op)
    other = replace(node.type, shape=(*node.type.shape, 3), public=not node.type.public)
    with pytest.raises(InternalError):
        verify(replace_node(graph, node.name, type=other))


@pytest.mark.parametrize("op", [name for name, row in PRIMITIVES.items() if row.attrs and name != "arg"])
def test_every_attribute_is_needed_and_none_more(op):
    graph = build(op)
    node = next(n for n in graph if n.op == op)
    for left_out in range(len(node.attrs)):
        fewer = replace(node, attrs=node.attrs[:left_out] + node.attrs[left_out + 1 :])
        with pytest.raises(InternalError, match=r"attribute|unknown layout"):
            verify(graph.with_nodes(fewer if n is node else n for n in graph))
    with pytest.raises(InternalError, match="unknown attribute zzz"):
        verify(replace_node(graph, node.name, attrs={"zzz": 1}))


def test_every_layout_and_variant_is_built():
    assert {str(n.attr("kind")) for n in nodes_of(build("layout"), "layout")} | {"reshape"} == set(LAYOUTS)
    assert {str(n.attr("variant")) for n in nodes_of(build("trunc"), "trunc")} == set(VARIANTS)


@pytest.mark.parametrize("op", PRIMITIVES)
def test_every_row_has_a_price_or_is_free(op):
    """With secret operands; what is free even then is local work by its kind."""
    keys = {price_key(n, [False] * len(n.inputs)) for n in nodes_of(build(op), op)}
    free = PRIMITIVES[op].kind in ("leaf", "linear", "layout", "state", "loop") or op == "rescale"
    assert keys == {None} if free else None not in keys
    for key in keys - {None, "trunc_local"}:
        assert all(key in prices.prices for prices in PRICES.values())


def test_public_operands():
    (product,) = nodes_of(build("mul"), "mul")
    assert price_key(product, [False, False]) == "mul" and price_key(product, [True, False]) is None
    (matrix,) = nodes_of(build("matmul"), "matmul")
    assert price_key(matrix, [True, False]) == "matmul" and price_key(matrix, [True, True]) is None
    assert price_key(matrix, [True, False], public_products_local=True) is None
    (selection,) = nodes_of(build("select"), "select")
    assert price_key(selection, [True, True, True]) == "mul"


def test_every_row_says_what_it_means():
    assert all(row.name == name and row.meaning for name, row in PRIMITIVES.items())
