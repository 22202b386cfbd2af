"""Element-wise non-linearities with the form the user chose."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.approximations import gelu as gelu_forms
from mpcc.compiler.approximations import sigmoid as sigmoid_forms
from mpcc.compiler.ir import Node
from mpcc.compiler.lowering.context import Context, lowers
from mpcc.compiler.ring import RingNode


@lowers("gelu")
def lower_gelu(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """Faithful: an even polynomial over the calibrated range, or piecewise for any argument. Or MPCFormer's quad."""
    x, form, bits = ctx.at_scale(inputs[0]), str(node.attr("approximate", "none")), ctx.settings.inner_frac_bits
    if ctx.settings.approximations.get("gelu") == "quad":
        return gelu_forms.quad(ctx.b, x)
    domain = None if ctx.settings.wide else gelu_forms.even_domain(_argument_bound(ctx, node))
    if domain is not None:
        x = ctx.b.rescale(x, x.type.frac_bits, bound=domain)
        return gelu_forms.gelu_within(ctx.b, x, form=form, inner_frac_bits=bits)
    return gelu_forms.gelu(ctx.b, x, form=form, inner_frac_bits=bits)


def _argument_bound(ctx: Context, node: Node) -> float:
    argument = max(-ctx.statistic(node, "argument_min"), ctx.statistic(node, "argument_max"))
    return argument * ctx.settings.range_margin  # rounded up to a domain


@lowers("tanh", "sigmoid", "silu", "relu")
def lower_sigmoidal(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """The faithful form of the same name."""
    forms = {
        "tanh": sigmoid_forms.tanh,
        "sigmoid": sigmoid_forms.sigmoid,
        "silu": sigmoid_forms.silu,
        "relu": sigmoid_forms.relu,
    }
    return forms[node.op](ctx.b, ctx.at_scale(inputs[0]))
