"""The functions that stand in place of GELU and softmax where the user says so (compiler/ops/substitutes.py)."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.backends.spu.families.attention import divided, scaled_scores
from mpcc.backends.spu.writer import Value, Writer, emits, integers
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.substitutes import LEAST_SUM, QUAD_OFFSET

Inputs = Sequence[Value]
LARGEST_WEIGHT = {"2quad": 4 * QUAD_OFFSET**2, "2relu": 8.0}  # most are smaller: what sums are scaled for


@emits("gelu_quad")
def _gelu_quad(w: Writer, node: Node, inputs: Inputs) -> Value:
    """(x + 1)^2 / 8 + 3/8."""
    shifted = w.shift(inputs[0], 1.0)
    return w.shift(w.scale(w.mul(shifted, shifted), 0.125), 0.375)


def _weights(w: Writer, node: Node, scores: Value) -> tuple[Value, float]:
    """The weights, before they are divided by their sum, and what that sum is around at most for each of them."""
    form = node.op.rpartition("_")[2]
    if form == "2relu":
        return w.binary("maximum", scores, w.constant(0.0, scores.shape)), LARGEST_WEIGHT[form]
    shifted = w.shift(scores, QUAD_OFFSET)
    return w.mul(shifted, shifted), LARGEST_WEIGHT[form]


@emits("softmax_2quad", "softmax_2relu")
def _softmax(w: Writer, node: Node, inputs: Inputs) -> Value:
    dim = integers(node, "dim")[0]
    weights, largest = _weights(w, node, inputs[0])
    total = w.shift(w.reduce("add", weights, [dim], keepdim=True), LEAST_SUM)
    return divided(w, weights, total, largest * inputs[0].shape[dim])


@emits("attention_2quad", "attention_2relu")
def _attention(w: Writer, node: Node, inputs: Inputs) -> Value:
    """(w V) / (2^-6 + sum w): a masked key is left out of V and of the ones that are summed, never of S x S weights."""
    query, key, value = inputs[:3]
    weights, largest = _weights(w, node, scaled_scores(w, node, query, key))
    if node.attr("mask") == "key":
        batch, length = inputs[3].shape
        keep = w.reshape(inputs[3], (batch, *(1,) * (len(value.shape) - 3), length, 1))
        value = w.mul(value, keep)
        total = w.matmul(weights, w.expand(keep, (*value.shape[:-1], 1)))
    else:
        total = w.reduce("add", weights, [len(weights.shape) - 1], keepdim=True)
    return divided(w, w.matmul(weights, value), w.shift(total, LEAST_SUM), largest * key.shape[-2])
