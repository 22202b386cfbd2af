"""Sums and means over dimensions: local, but for the truncation after a mean's factor."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, ints_attr, lowers
from mpcc.compiler.lowering.families.elementwise import times
from mpcc.compiler.ring.ir import RingNode


@lowers("sum", "mean")
def lower_sum_over(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Over none of the dimensions it is the value itself."""
    x = inputs[0]
    terms = 1
    for dim in ints_attr(node, "dims"):
        terms *= x.type.shape[dim]
        x = ctx.b.sum(x, dim)
    if node.op == "mean":
        x = ctx.at_scale(times(ctx, x, 1.0 / terms))
    return ctx.b.reshape(x, node.type.shape)
