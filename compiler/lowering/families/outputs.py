"""What is done to an output before it is opened."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.approximations.argmax import argmax
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers
from mpcc.compiler.ring.ir import RingNode


@lowers("argmax")
def lower_argmax(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """All bits of the values are compared; the position is a whole number at scale 0."""
    return ctx.b.reshape(argmax(ctx.b, inputs[0]), node.type.shape)


@lowers("round_nearest")
def lower_round_nearest(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """One truncation to nearest, whatever the others of the program are: half a unit of error, no lower bit is left."""
    x = ctx.at_scale(inputs[0])
    surplus = x.type.frac_bits - int_attr(node, "frac_bits")
    return ctx.b.trunc(x, surplus, "nearest") if surplus > 0 else x
