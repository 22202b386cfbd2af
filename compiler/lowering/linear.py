"""Matrix products. Feature-major inside: W x, so that torch's weight layout (out, in) is the left factor as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.compiler.ir import Node
from mpcc.compiler.lowering.context import Context, lowers
from mpcc.compiler.ring import RingNode


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
    if len(inputs) > 2:
        bias = inputs[2]
        lifted = b.rescale(bias, product.type.frac_bits)
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
