"""What is kept from one request to the next: rows of shares, one for every entry of the dimension that grows.

A state is an array of rows, so that what is stored at a position is contiguous; operations see the dimension where the
model has it, which is a matter of views.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers, number_attr
from mpcc.compiler.ring.ir import RingNode


def load(ctx: Context, node: Node) -> RingNode:
    """The leaf `state`: its first entries, at the working scale."""
    dim, entries = int_attr(node, "dim"), int_attr(node, "entries")
    order = _dim_first(len(node.type.shape), dim)
    shape = tuple(node.type.shape[d] for d in order)
    rows = ctx.b.load_state(str(node.attr("state")), shape, ctx.f, number_attr(node, "bound"), entries)
    return ctx.b.permute(rows, tuple(order.index(d) for d in range(len(order))))


@lowers("keep")
def lower_keep(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    value, position = inputs
    dim, entries = int_attr(node, "dim"), int_attr(node, "entries")
    rows = ctx.b.permute(ctx.at_scale(value), _dim_first(len(node.type.shape), dim))
    bounded = ctx.b.rescale(rows, ctx.f, bound=number_attr(node, "bound"))
    return ctx.b.store_state(bounded, position, str(node.attr("state")), entries)


def _dim_first(rank: int, dim: int) -> tuple[int, ...]:
    return (dim, *(d for d in range(rank) if d != dim))
