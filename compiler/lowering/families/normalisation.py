"""LayerNorm and RMSNorm: one inner product and one reciprocal root per token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.compiler.approximations.newton import LEAN_BITS, LEAN_ERROR, TARGET, rsqrt, rsqrt_error
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers
from mpcc.compiler.ring.ir import RingNode

ROOT_FRAC_BITS = 24
MEAN_BITS = 20


def _root(ctx: Context, node: Node, squares: RingNode, width: int) -> RingNode:
    """1 / sqrt(mean square + eps) per token from the sum of squares at scale 2f."""
    b = ctx.b
    eps = max(float(node.attr("eps", 0.0)), 0.0)  # type: ignore[arg-type]
    low = ctx.statistic(node, "variance_min") / ctx.variance_margin + eps
    high = ctx.statistic(node, "variance_max") * ctx.variance_margin + eps
    low, high = 2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high))
    # eps below one unit of the scale is raised to it: a constant row then normalises to zero instead of dividing by 0
    ulp = 2.0**-squares.type.frac_bits
    total = b.add_const(squares, max(eps * width, ulp), bound=min(squares.type.bound, high * width * 2))
    low, high = low * width, high * width
    lean = ctx.settings.lean
    bits, error = (LEAN_BITS, LEAN_ERROR) if lean else (ROOT_FRAC_BITS, TARGET)
    root = rsqrt(b, total, low=low, high=high, frac_bits=bits, error=error, lean=lean, weighing=ctx.settings.root_start)
    domain = f"mean square in [{low / width:g}, {high / width:g}]"
    ctx.uses(f"{node.op}: rsqrt", "Newton", domain, rsqrt_error(bits, error), relative=True)
    factor = math.sqrt(width) * float(node.attr("gain", 1.0))  # type: ignore[arg-type]
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
    centred = b.sub(x, b.expand(mean, x.type.shape))
    high = ctx.statistic(node, "variance_max") * ctx.variance_margin
    squares = b.dot(centred, centred, bound=2.0 ** math.ceil(math.log2(high * width * 2)))
    return _scaled(ctx, node, centred, _root(ctx, node, squares, width), inputs)


@lowers("rms_norm")
def lower_rms_norm(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """gain * x / sqrt(mean(x^2) + eps) * gamma over the last dimension (Zhang and Sennrich 2019)."""
    b, x = ctx.b, ctx.at_scale(inputs[0])
    width = x.type.shape[-1]
    high = ctx.statistic(node, "variance_max") * ctx.variance_margin
    squares = b.dot(x, x, bound=2.0 ** math.ceil(math.log2(high * width * 2)))
    return _scaled(ctx, node, x, _root(ctx, node, squares, width), inputs)
