"""Operations that move data: free in MPC."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, ints_attr, lowers
from mpcc.compiler.ring.ir import RingNode


@lowers("reshape")
def lower_reshape(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    return ctx.b.reshape(inputs[0], node.type.shape)


@lowers("permute")
def lower_permute(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    return ctx.b.permute(inputs[0], ints_attr(node, "dims"))


@lowers("expand")
def lower_expand(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    return ctx.b.expand(inputs[0], node.type.shape)


@lowers("slice")
def lower_slice(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    dim, start, stop, step = (int_attr(node, key) for key in ("dim", "start", "stop", "step"))
    return ctx.b.slice(inputs[0], dim, start, stop, step)


@lowers("concat")
def lower_concat(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    frac_bits = max(x.type.frac_bits for x in inputs)
    return ctx.b.concat([ctx.b.rescale(x, frac_bits) for x in inputs], int_attr(node, "dim"))
