"""Sums, products and factors, element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.compiler.approximations.exp import FORMS, MAX_FRAC_BITS, exp_error, exp_negative
from mpcc.compiler.approximations.newton import reciprocal, reciprocal_error, rsqrt, rsqrt_error
from mpcc.compiler.errors import RangeError
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers, number_attr
from mpcc.compiler.lowering.settings import RANGE_MARGIN, VARIANCE_MARGIN, rounded_up
from mpcc.compiler.ring.ir import RingNode

_INVERSE_BITS = 24
FACTOR_BITS = 18  # a public factor keeps so many significant bits


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
    return ctx.at_scale(times(ctx, inputs[0], number_attr(node, "factor")))


def times(ctx: Context, x: RingNode, factor: float) -> RingNode:
    """x * factor with FACTOR_BITS significant bits of the factor, as far as the ring has room for them."""
    if factor == 0.0:
        return ctx.b.mul_int(x, 0)
    exponent = math.floor(math.log2(abs(factor)))
    room = ctx.settings.ring_bits - 4 - x.type.int_bits - exponent
    return ctx.b.scale(x, factor, max(0, min(FACTOR_BITS - exponent, room)))


@lowers("shift")
def lower_shift(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x plus a public number."""
    return ctx.b.add_const(ctx.at_scale(inputs[0]), number_attr(node, "offset"), bound=ctx.bound(node))


@lowers("cast")
def lower_cast(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Between number types: the ring knows one."""
    return inputs[0]


def _positive(ctx: Context, node: Node) -> tuple[float, float]:
    """The calibrated interval of the argument with margin, out to powers of two: no other range leaves us."""
    low = ctx.statistic(node, "argument_min")
    if low <= 0:
        raise RangeError(
            f"{node.op} of a value that is not positive on the calibration inputs; mpcc has it for positive ones only",
            where=node.origin.layer or node.name,
        )
    high = ctx.statistic(node, "argument_max") * VARIANCE_MARGIN
    low, high = 2.0 ** math.floor(math.log2(low / VARIANCE_MARGIN)), 2.0 ** math.ceil(math.log2(high))
    error = rsqrt_error(_INVERSE_BITS) if node.op in ("rsqrt", "sqrt") else reciprocal_error(_INVERSE_BITS)
    ctx.applies(node.op, "Newton", f"[{low:g}, {high:g}]", error, relative=True)
    return low, high


@lowers("reciprocal")
def lower_reciprocal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """1 / x on the calibrated positive interval."""
    low, high = _positive(ctx, node)
    return ctx.at_scale(reciprocal(ctx.b, inputs[0], low=low, high=high, frac_bits=_INVERSE_BITS))


@lowers("div")
def lower_div(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x / y for y on its calibrated positive interval."""
    low, high = _positive(ctx, node)
    inverse = reciprocal(ctx.b, inputs[1], low=low, high=high, frac_bits=_INVERSE_BITS)
    x, y = (ctx.b.expand(v, node.type.shape) for v in (inputs[0], inverse))
    return ctx.at_scale(ctx.b.mul(x, y, bound=ctx.bound(node)))


@lowers("rsqrt")
def lower_rsqrt(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """1 / sqrt(x) on the calibrated positive interval."""
    low, high = _positive(ctx, node)
    return ctx.at_scale(rsqrt(ctx.b, inputs[0], low=low, high=high, frac_bits=_INVERSE_BITS))


@lowers("sqrt")
def lower_sqrt(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """sqrt(x) = x / sqrt(x) on the calibrated positive interval."""
    low, high = _positive(ctx, node)
    root = rsqrt(ctx.b, inputs[0], low=low, high=high, frac_bits=_INVERSE_BITS)
    return ctx.at_scale(ctx.b.mul(inputs[0], root, bound=ctx.bound(node)))


@lowers("exp")
def lower_exp(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """e^x = e^top * e^(x - top) with `top` above every calibrated argument; exact to a share of e^top."""
    x = ctx.at_scale(inputs[0])
    top = float(math.ceil(ctx.statistic(node, "argument_max") + math.log(RANGE_MARGIN)))
    lowest = -rounded_up(max(-ctx.statistic(node, "argument_min"), 0.0)) - abs(top) - 1.0
    # the widest domain has the most squarings: they are what small results far below e^top need
    form = FORMS[-1]
    error = exp_error(form, min(ctx.f + form.squarings, MAX_FRAC_BITS))
    ctx.applies("exp", "quartic", f"up to {top:g}; error per largest result", error, relative=True)
    power = exp_negative(ctx.b, ctx.b.add_const(x, -top, bound=-lowest), lowest=min(lowest, form.lowest))
    return ctx.at_scale(times(ctx, power, math.exp(top)))


@lowers("where")
def lower_where(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """The condition is its owner's 0 or 1; one product, no truncation."""
    x, y = ctx.align(*inputs[1:])
    return ctx.b.select(*(ctx.b.expand(v, node.type.shape) for v in (inputs[0], x, y)))
