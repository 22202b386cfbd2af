"""What softmax and attention tell of their exponentials and reciprocals."""

from __future__ import annotations

from mpcc.compiler.approximations.exp import ExpForm, exp_error
from mpcc.compiler.approximations.newton import reciprocal_error
from mpcc.compiler.approximations.softmax import reciprocal_format
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context


def note_exp(ctx: Context, node: Node, form: ExpForm, frac_bits: int, max_bits: int) -> None:
    """An exponential of arguments at `frac_bits`, its result at `max_bits` at most."""
    error = exp_error(form, min(frac_bits + form.squarings, max_bits))
    ctx.applies(f"{node.op}: exp", form.name, f"[{form.lowest:g}, 0]", error)


def note_reciprocal(ctx: Context, node: Node, sums: tuple[float, float], lean: bool) -> None:
    """A reciprocal of sums in the interval `sums`."""
    bits, target = reciprocal_format(lean)
    domain = f"[{sums[0]:.3g}, {sums[1]:.3g}]"
    ctx.applies(f"{node.op}: reciprocal", "Newton", domain, reciprocal_error(bits, target), relative=True)
