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
    """Faithful piecewise polynomial, or MPCFormer's quad."""
    x = ctx.at_scale(inputs[0])
    if ctx.settings.approximations.get("gelu") == "quad":
        return gelu_forms.quad(ctx.b, x)
    return gelu_forms.gelu(ctx.b, x, form=str(node.attr("approximate", "none")), lean=ctx.settings.lean)


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
