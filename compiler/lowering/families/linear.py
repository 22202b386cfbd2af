"""Matrix products. Feature-major inside: W x, so that torch's weight layout (out, in) is the left factor as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers
from mpcc.compiler.ring.ir import RingNode


@lowers("linear")
def lower_linear(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x [..., in], W [out, in], bias [out]: the bias joins at the product's scale, one truncation for all."""
    b, (x, weight) = ctx.b, inputs[:2]
    if x.type.frac_bits > ctx.f + 1:  # one bit more (after GELU) is cheaper kept than truncated
        x = ctx.at_scale(x)
    tokens = math.prod(x.type.shape[:-1])
    columns = b.transpose(b.reshape(x, (tokens, x.type.shape[-1])))
    bound = ctx.bound(node)
    product = b.matmul(weight, columns, bound=None if bound is None else 4 * bound)
    return _with_bias(ctx, node, product, inputs[2:])


@lowers("linear_diagonal")
def lower_linear_diagonal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x [..., in] and r [..., out] side by side, W [out, in + block] with the blocks of r's matrix as last columns."""
    b, (x, r, weight) = ctx.b, inputs[:3]
    x, r = ctx.align(x, r)
    if x.type.frac_bits > ctx.f + 1:
        x, r = ctx.at_scale(x), ctx.at_scale(r)
    tokens = math.prod(r.type.shape[:-1])
    columns = b.concat([b.transpose(b.reshape(v, (tokens, v.type.shape[-1]))) for v in (x, r)], 0)
    bound = ctx.bound(node)
    product = b.block_matmul(weight, columns, int_attr(node, "block"), bound=None if bound is None else 4 * bound)
    return _with_bias(ctx, node, product, inputs[3:])


def _with_bias(ctx: Context, node: Node, product: RingNode, bias: Sequence[RingNode]) -> RingNode:
    """The bias joins at the product's scale; back to [..., out]."""
    b, bound = ctx.b, ctx.bound(node)
    for given in bias:
        lifted = b.rescale(given, product.type.frac_bits)
        column = b.reshape(lifted, (lifted.type.shape[0], 1))
        product = b.add(product, b.expand(column, product.type.shape), bound=bound)
    out = b.rescale(product, ctx.f, bound=bound)
    return b.reshape(b.transpose(out), node.type.shape)


@lowers("matmul")
def lower_matmul(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """[..., n, k] x [..., k, m] with broadcast leading dimensions."""
    b, (x, y) = ctx.b, inputs
    lead = node.type.shape[:-2]
    x = b.expand(x, (*lead, *x.type.shape[-2:]))
    y = b.expand(y, (*lead, *y.type.shape[-2:]))
    bound = ctx.bound(node)
    return b.rescale(b.matmul(x, y, bound=bound), ctx.f, bound=bound)
