"""Element-wise non-linearities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpcc.compiler.approximations import sigmoid as sigmoid_forms
from mpcc.compiler.approximations.gelu import GELU
from mpcc.compiler.approximations.silu import SILU
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers, number_attr
from mpcc.compiler.lowering.families.elementwise import times
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

ANY = "any value within its bound"


@lowers("gelu", "silu")
def lower_half_even(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """An even polynomial over the calibrated range, or piecewise for any argument."""
    function = GELU[str(node.attr("approximate"))] if node.op == "gelu" else SILU
    x, bits = ctx.at_scale(inputs[0]), ctx.settings.inner_frac_bits
    chain = None if ctx.settings.wide else function.within(_argument_bound(ctx, node))
    domain = None if chain is None else chain.edge
    error = function.error(domain, ctx.f, bits)
    if domain is None:
        ctx.applies(node.op, "polynomial", ANY, error)
        return function.evaluate_anywhere(ctx.b, x, bits)
    ctx.applies(node.op, "even polynomial", f"[{-domain:g}, {domain:g}]", error)
    return function.evaluate_within(ctx.b, ctx.b.rescale(x, x.type.frac_bits, bound=domain), bits)


def _argument_bound(ctx: Context, node: Node) -> float:
    argument = max(-ctx.statistic(node, "argument_min"), ctx.statistic(node, "argument_max"))
    return argument * ctx.settings.range_margin  # rounded up to a domain


# operation -> (function, bound of the error at a scale (None: exact), domain)
_SIGMOIDAL: dict[str, tuple[Callable[[Builder, RingNode], RingNode], Callable[[int], float] | None, str]] = {
    "tanh": (sigmoid_forms.tanh, sigmoid_forms.tanh_error, ANY),
    "sigmoid": (sigmoid_forms.sigmoid, sigmoid_forms.sigmoid_error, ANY),
    "relu": (sigmoid_forms.relu, None, ANY),
}


@lowers("tanh", "sigmoid", "relu")
def lower_sigmoidal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """The approximation of the same name."""
    function, error, domain = _SIGMOIDAL[node.op]
    if error is not None:
        ctx.applies(node.op, "exp, reciprocal", domain, error(ctx.f))
    return function(ctx.b, ctx.at_scale(inputs[0]))


@lowers("leaky_relu")
def lower_leaky_relu(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x - (1 - slope) [x < 0] x: one comparison, one product; the factor takes a truncation."""
    x = ctx.at_scale(inputs[0])
    negative = ctx.b.mul(ctx.b.lt_zero(x), x, bound=x.type.bound)
    whole, part = ctx.align(x, times(ctx, negative, 1.0 - number_attr(node, "slope")))
    return ctx.at_scale(ctx.b.sub(whole, part, bound=ctx.bound(node)))
