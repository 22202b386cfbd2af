"""LayerNorm and RMSNorm, one inner product and one reciprocal root per token; softmax over any dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mpcc.compiler.approximations import softmax as forms
from mpcc.compiler.approximations.exp import MAX_FRAC_BITS, form_for
from mpcc.compiler.approximations.newton import LEAN_BITS, LEAN_ERROR, TARGET, rsqrt, rsqrt_error
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers, number_attr
from mpcc.compiler.lowering.families.exponentials import note_exp, note_reciprocal
from mpcc.compiler.ops.normalisation import lifted_of
from mpcc.compiler.ring.ir import RingNode

ROOT_FRAC_BITS = 24
MEAN_BITS = 20


def _by_position(ctx: Context, node: Node, x: RingNode, function: Callable[[RingNode, int], RingNode]) -> RingNode:
    """`function` of what stands at the first positions (with 0), and of what is lifted (with the power of two)."""
    lifted = lifted_of(dict(node.attrs))
    if lifted is None:
        return function(x, 0)
    (first, steps), b, positions = lifted, ctx.b, x.type.shape[1]
    parts = [function(b.slice(x, 1, 0, first), 0), function(b.slice(x, 1, first, positions), steps)]
    return b.concat(parts, 1)


def _lift(ctx: Context, node: Node, x: RingNode) -> RingNode:
    """x with all positions in one domain; no entry of a row is larger than the root of its sum of squares."""
    high = ctx.statistic(node, "variance_max") * ctx.settings.variance_margin
    largest = 2.0 ** math.ceil(math.log2(math.sqrt(high * x.type.shape[-1])))

    def times(part: RingNode, steps: int) -> RingNode:
        bound = min(part.type.bound * 2**steps, largest)
        return ctx.b.mul_int(part, 2**steps, bound=bound) if steps else part

    return _by_position(ctx, node, x, times)


def _root(ctx: Context, node: Node, squares: RingNode, width: int) -> RingNode:
    """1 / sqrt(mean square + eps) per token from the sum of squares at scale 2f."""
    b = ctx.b
    eps = max(number_attr(node, "eps", 0.0), 0.0)
    low = ctx.statistic(node, "variance_min") / ctx.settings.variance_margin + eps
    lifted = lifted_of(dict(node.attrs))
    largest_eps = eps * 4.0 ** (lifted[1] if lifted else 0)
    high = ctx.statistic(node, "variance_max") * ctx.settings.variance_margin + largest_eps
    low, high = 2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high))
    # eps below one unit of the scale is raised to it: a constant row then normalises to zero instead of dividing by 0
    ulp = 2.0**-squares.type.frac_bits
    most = min(squares.type.bound, high * width * 2)
    total = _by_position(
        ctx, node, squares, lambda part, steps: b.add_const(part, max(eps * width * 4.0**steps, ulp), bound=most)
    )
    low, high = low * width, high * width
    lean = ctx.settings.lean
    bits, error = (LEAN_BITS, LEAN_ERROR) if lean else (ROOT_FRAC_BITS, TARGET)
    root = rsqrt(b, total, low=low, high=high, frac_bits=bits, error=error, lean=lean, weighing=ctx.settings.root_start)
    domain = f"mean square in [{low / width:g}, {high / width:g}]"
    if lifted is not None:
        domain += f", that of positions from {lifted[0]} on times {4 ** lifted[1]}"
    ctx.applies(f"{node.op}: rsqrt", "Newton", domain, rsqrt_error(bits, error), relative=True)
    factor = math.sqrt(width) * number_attr(node, "gain", 1.0)
    if abs(math.log2(factor) - round(math.log2(factor))) < 1e-9:  # chosen so by affine folding: only moves the point
        return b.scale(root, 2.0 ** round(math.log2(factor)), 0)
    return b.rescale(b.scale(root, factor, 16), root.type.frac_bits if ctx.settings.lean else ROOT_FRAC_BITS)


def _scaled(ctx: Context, node: Node, centred: RingNode, root: RingNode, inputs: Sequence[RingNode]) -> RingNode:
    """centred * root [* gamma [+ beta]]."""
    b = ctx.b
    width = centred.type.shape[-1]
    limit = 2.0 ** math.ceil(math.log2(math.sqrt(width) * 1.1))  # a normalised row has no entry above sqrt(width)
    bound = ctx.bound(node)
    affine = len(inputs) > 1
    normal_bound = limit if affine or bound is None else min(limit, bound)
    product = b.mul(centred, b.expand(root, centred.type.shape), bound=normal_bound)
    x = b.rescale(product, ctx.f, bound=normal_bound)
    if not affine:
        return x
    x = b.mul(x, b.expand(inputs[1], x.type.shape), bound=None if bound is None else 2 * bound)
    if len(inputs) > 2:
        x = b.add(x, b.expand(b.rescale(inputs[2], x.type.frac_bits), x.type.shape), bound=bound)
    return b.rescale(x, ctx.f, bound=bound)


@lowers("layer_norm")
def lower_layer_norm(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """(x - mean) / sqrt(var + eps) * gamma + beta over the last dimension (Ba et al. 2016)."""
    b, x = ctx.b, ctx.at_scale(inputs[0])
    width = x.type.shape[-1]
    total = b.sum(x, len(x.type.shape) - 1)
    mean = b.rescale(b.scale(total, 1.0 / width, MEAN_BITS), ctx.f, bound=x.type.bound)
    centred = _lift(ctx, node, b.sub(x, b.expand(mean, x.type.shape)))
    high = ctx.statistic(node, "variance_max") * ctx.settings.variance_margin
    squares = b.dot(centred, centred, bound=2.0 ** math.ceil(math.log2(high * width * 2)))
    return _scaled(ctx, node, centred, _root(ctx, node, squares, width), inputs)


@lowers("rms_norm")
def lower_rms_norm(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """gain * x / sqrt(mean(x^2) + eps) * gamma over the last dimension (Zhang and Sennrich 2019)."""
    b, x = ctx.b, _lift(ctx, node, ctx.at_scale(inputs[0]))
    width = x.type.shape[-1]
    high = ctx.statistic(node, "variance_max") * ctx.settings.variance_margin
    squares = b.dot(x, x, bound=2.0 ** math.ceil(math.log2(high * width * 2)))
    return _scaled(ctx, node, x, _root(ctx, node, squares, width), inputs)


@lowers("softmax")
def lower_softmax(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """softmax over any one dimension."""
    x, dim = ctx.at_scale(inputs[0]), int_attr(node, "dim")
    spread = ctx.rounded_up(ctx.statistic(node, "spread"))
    note_exp(ctx, node, form_for(-spread), ctx.f, MAX_FRAC_BITS)
    note_reciprocal(ctx, node, (0.95, 1.05 * x.type.shape[dim]), lean=False)
    return over_rows(
        ctx,
        x,
        dim,
        lambda rows: forms.softmax(ctx.b, rows, spread=spread, frac_bits=ctx.f, arity=ctx.settings.row_maximum_arity),
    )


def over_rows(ctx: Context, x: RingNode, dim: int, function: Callable[[RingNode], RingNode]) -> RingNode:
    """`function`, which works on the last dimension, along `dim`."""
    last = len(x.type.shape) - 1
    order = (*(d for d in range(last + 1) if d != dim), dim)
    back = tuple(order.index(d) for d in range(last + 1))
    return ctx.b.permute(function(ctx.b.permute(x, order)), back)
