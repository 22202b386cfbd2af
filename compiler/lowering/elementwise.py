"""Sums, products and factors, element by element."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.approximations.newton import reciprocal, rsqrt
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ir import Node
from mpcc.compiler.lowering.context import VARIANCE_MARGIN, Context, lowers
from mpcc.compiler.ring import RingNode

FACTOR_BITS = 14


@lowers("add", "sub")
def lower_sum(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Broadcast sum or difference; no communication."""
    x, y = (ctx.b.expand(v, node.type.shape) for v in ctx.align(inputs[0], inputs[1]))
    combine = ctx.b.add if node.op == "add" else ctx.b.sub
    return combine(x, y, bound=ctx.bound(node))


@lowers("mul")
def lower_mul(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Broadcast product, truncated where the scale grew."""
    x, y = (ctx.b.expand(v, node.type.shape) for v in inputs)
    product = ctx.b.mul(x, y, bound=ctx.bound(node))
    return ctx.at_scale(product) if product.type.frac_bits > ctx.f else product


@lowers("square")
def lower_square(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x^2."""
    return ctx.at_scale(ctx.b.mul(inputs[0], inputs[0], bound=ctx.bound(node)))


@lowers("scale")
def lower_scale(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x times a public number; a power of two moves the binary point only."""
    factor = node.attr("factor")
    if not isinstance(factor, (int, float)):
        raise InternalError(f"{node.name}: factor is {factor!r}")
    return ctx.at_scale(ctx.b.scale(inputs[0], float(factor), FACTOR_BITS))


@lowers("shift")
def lower_shift(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x plus a public number."""
    offset = node.attr("offset")
    if not isinstance(offset, (int, float)):
        raise InternalError(f"{node.name}: offset is {offset!r}")
    return ctx.b.add_const(ctx.at_scale(inputs[0]), float(offset), bound=ctx.bound(node))


@lowers("cast")
def lower_cast(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Between number types: the ring knows one."""
    return inputs[0]


@lowers("reciprocal")
def lower_reciprocal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """1 / x on the calibrated positive interval."""
    low = ctx.statistic(node, "argument_min") / VARIANCE_MARGIN
    high = ctx.statistic(node, "argument_max") * VARIANCE_MARGIN
    return ctx.at_scale(reciprocal(ctx.b, inputs[0], low=low, high=high, frac_bits=24))


@lowers("rsqrt")
def lower_rsqrt(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """1 / sqrt(x) on the calibrated positive interval."""
    low = ctx.statistic(node, "argument_min") / VARIANCE_MARGIN
    high = ctx.statistic(node, "argument_max") * VARIANCE_MARGIN
    return ctx.at_scale(rsqrt(ctx.b, inputs[0], low=low, high=high, frac_bits=22))


@lowers("sum", "mean")
def lower_sum_over(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Sum or mean over dimensions; the sum is local."""
    dims = node.attr("dims")
    if not isinstance(dims, tuple):
        raise InternalError(f"{node.name}: dims is {dims!r}")
    x = inputs[0]
    terms = 1
    for dim in dims:
        terms *= x.type.shape[int(dim)]  # type: ignore[arg-type]
        x = ctx.b.sum(x, int(dim))  # type: ignore[arg-type]
    if node.op == "mean":
        x = ctx.at_scale(ctx.b.scale(x, 1.0 / terms, FACTOR_BITS + terms.bit_length()))
    return ctx.b.reshape(x, node.type.shape)
