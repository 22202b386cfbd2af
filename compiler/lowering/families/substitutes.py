"""The functions that stand in place of GELU and softmax where the user says so (compiler/ops/substitutes.py)."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.compiler.approximations import softmax as forms
from mpcc.compiler.approximations.gelu import quad
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers
from mpcc.compiler.lowering.families.activations import ANY
from mpcc.compiler.lowering.families.attention import kept_sums, masked_keys, scaled_scores
from mpcc.compiler.lowering.families.normalisation import over_rows
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ring.ir import RingNode

_SCORES = "any score within its bound"


def _note(ctx: Context, node: Node, domain: str) -> str:
    """The form that the user chose."""
    op = REGISTRY[node.op]
    form = op.chosen_by[1]
    ctx.applies(op.replaces, form, domain, None, changes_model=True)
    return form


@lowers("gelu_quad")
def lower_gelu_quad(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """One square."""
    _note(ctx, node, ANY)
    return quad(ctx.b, ctx.at_scale(inputs[0]))


@lowers("softmax_2quad", "softmax_2relu")
def lower_softmax_substitute(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """w / (2^-6 + sum w) over any one dimension."""
    square = _note(ctx, node, _SCORES) == "2quad"
    x = ctx.at_scale(inputs[0])
    return over_rows(
        ctx,
        x,
        int_attr(node, "dim"),
        lambda rows: forms.softmax_without_exp(ctx.b, rows, square=square, frac_bits=ctx.f),
    )


@lowers("attention_2quad", "attention_2relu")
def lower_attention_substitute(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """(w V) / (2^-6 + sum w) over kept keys; how masked keys are left out is told in families/attention.py."""
    b = ctx.b
    query, key, value = (ctx.at_scale(x) for x in inputs[:3])
    keep: RingNode | None = None
    if node.attr("mask") == "key":
        key, keep = masked_keys(ctx, key, inputs[3], inputs[4])
    scores = scaled_scores(ctx, node, query, key)
    square = _note(ctx, node, _SCORES) == "2quad"
    limit = value.type.bound * 1.01
    if keep is None:
        weights = forms.softmax_without_exp(b, scores, square=square, frac_bits=ctx.f)
        return b.rescale(b.matmul(weights, value, bound=limit), ctx.f)
    weights = forms.weights_without_exp(b, scores, square=square)
    applied, total = kept_sums(ctx, weights, value, keep)
    r = forms.reciprocal_of_weights(b, total)
    numerator = b.rescale(applied, ctx.f)
    return b.rescale(b.mul(numerator, b.expand(r, numerator.type.shape), bound=limit), ctx.f)
