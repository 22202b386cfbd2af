"""Scores and logits that are kept below a cap."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.approximations import soft_cap as forms
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers, number_attr
from mpcc.compiler.ring.ir import RingNode


@lowers("soft_cap")
def lower_soft_cap(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """On the calibrated range of the argument."""
    bound = ctx.rounded_up(ctx.statistic(node, "argument_abs"))
    return capped(ctx, node, ctx.b.rescale(inputs[0], ctx.f, bound=bound))


def capped(ctx: Context, node: Node, x: RingNode) -> RingNode:
    """cap tanh(x / cap) where the node has a cap, else x."""
    if node.attr("cap") is None:
        return x
    cap = number_attr(node, "cap")
    form = "tanh" if forms.polynomial(x.type.bound, cap) is None else "polynomial in x^2"
    error = forms.soft_cap_error(x.type.bound, cap, x.type.frac_bits)
    ctx.applies(f"{node.op}: cap", form, f"[-{x.type.bound:g}, {x.type.bound:g}]", error)
    return forms.soft_cap(ctx.b, x, cap)
