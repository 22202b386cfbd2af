"""Element-wise non-linearities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpcc.compiler.approximations import gelu as gelu_forms
from mpcc.compiler.approximations import sigmoid as sigmoid_forms
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers, number_attr
from mpcc.compiler.lowering.families.elementwise import times
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

ANY = "any value within its bound"


@lowers("gelu")
def lower_gelu(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """An even polynomial over the calibrated range, or piecewise for any argument."""
    x, form, bits = ctx.at_scale(inputs[0]), str(node.attr("approximate", "none")), ctx.settings.inner_frac_bits
    domain = None if ctx.settings.wide else gelu_forms.even_domain(_argument_bound(ctx, node))
    error = gelu_forms.gelu_error(form, ctx.f, domain=domain, inner_frac_bits=bits)
    if domain is not None:
        ctx.applies("gelu", "even polynomial", f"[{-domain:g}, {domain:g}]", error)
        x = ctx.b.rescale(x, x.type.frac_bits, bound=domain)
        return gelu_forms.gelu_within(ctx.b, x, form=form, inner_frac_bits=bits)
    ctx.applies("gelu", "polynomial", ANY, error)
    return gelu_forms.gelu(ctx.b, x, form=form, inner_frac_bits=bits)


def _argument_bound(ctx: Context, node: Node) -> float:
    argument = max(-ctx.statistic(node, "argument_min"), ctx.statistic(node, "argument_max"))
    return argument * ctx.settings.range_margin  # rounded up to a domain


# operation -> (function, bound of the error at a scale (None: exact), domain)
_SIGMOIDAL: dict[str, tuple[Callable[[Builder, RingNode], RingNode], Callable[[int], float] | None, str]] = {
    "tanh": (sigmoid_forms.tanh, sigmoid_forms.tanh_error, ANY),
    "sigmoid": (sigmoid_forms.sigmoid, sigmoid_forms.sigmoid_error, ANY),
    "silu": (sigmoid_forms.silu, sigmoid_forms.silu_error, "error per unit of |x|"),
    "relu": (sigmoid_forms.relu, None, ANY),
}


@lowers("tanh", "sigmoid", "silu", "relu")
def lower_sigmoidal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """The approximation of the same name."""
    function, error, domain = _SIGMOIDAL[node.op]
    if error is not None:
        ctx.applies(node.op, "exp, reciprocal", domain, error(ctx.f), relative=node.op == "silu")
    return function(ctx.b, ctx.at_scale(inputs[0]))


@lowers("leaky_relu")
def lower_leaky_relu(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """x - (1 - slope) [x < 0] x: one comparison, one product; the factor takes a truncation."""
    x = ctx.at_scale(inputs[0])
    negative = ctx.b.mul(ctx.b.lt_zero(x), x, bound=x.type.bound)
    whole, part = ctx.align(x, times(ctx, negative, 1.0 - number_attr(node, "slope")))
    return ctx.at_scale(ctx.b.sub(whole, part, bound=ctx.bound(node)))
