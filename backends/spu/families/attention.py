"""Attention, in a form that keeps every intermediate value in range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.families.activations import sigmoid
from mpcc.backends.spu.families.normalisation import powers
from mpcc.backends.spu.writer import Value, Writer, emits, number
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]
FAR = 1024.0  # how far below the others a masked score is put when calibration has not said more
NEGLIGIBLE = 32.0  # e^-32 of the largest weight is nothing in fixed point


@emits("attention", reads=("score_abs",))
def _attention(w: Writer, node: Node, inputs: Inputs) -> Value:
    """(e^(scores - largest) V) / sum: the division takes place on S x d elements instead of S x S."""
    query, key, value = inputs[:3]
    scores = scaled_scores(w, node, query, key)
    if len(inputs) > 3:
        scores = w.add(scores, _mask(w, node, inputs[3], len(scores.shape)))
    power, total = powers(w, scores, len(scores.shape) - 1)
    return divided(w, w.matmul(power, value), total, key.shape[-2])


@emits("attention_seen", reads=("score_abs",))
def _attention_seen(w: Writer, node: Node, inputs: Inputs) -> Value:
    """Keys that a query does not see, or that are masked, are put below the others."""
    query, key, value, seen = inputs[:4]
    scores = scaled_scores(w, node, query, key)
    biased = node.attr("bias") is not None
    if biased:
        scores = w.add(scores, inputs[-1])
    ones = (1,) * (len(scores.shape) - 3)
    counted = w.reshape(seen, (seen.shape[0], *ones, *seen.shape[1:]))
    if len(inputs) - biased > 4:
        keep = inputs[4]
        counted = w.mul(counted, w.reshape(keep, (keep.shape[0], *ones, 1, keep.shape[1])))
    scores = w.add(scores, w.scale(w.shift(counted, -1.0), _far(w, node)))
    power, total = powers(w, scores, len(scores.shape) - 1)
    return divided(w, w.matmul(power, value), total, key.shape[-2])


def scaled_scores(w: Writer, node: Node, query: Value, key: Value) -> Value:
    """scale q k^T, bent where there is a cap."""
    scores = w.matmul(w.scale(query, number(node, "scale")), w.transpose(key))
    return scores if node.attr("cap") is None else _soft_cap(w, node, [scores])


@emits("soft_cap")
def _soft_cap(w: Writer, node: Node, inputs: Inputs) -> Value:
    """cap (2 sigmoid(2 x / cap) - 1)."""
    cap = number(node, "cap")
    return w.shift(w.scale(sigmoid(w, w.scale(inputs[0], 2.0 / cap)), 2.0 * cap), -cap)


def _mask(w: Writer, node: Node, mask: Value, rank: int) -> Value:
    """What to add to the scores: 0, or `far` below them."""
    far = _far(w, node)
    kind = node.attr("mask")
    if kind == "additive":
        return w.binary("maximum", mask, w.constant(-far, mask.shape))
    lowered = w.scale(w.shift(mask, -1.0), far)
    if kind == "key":
        return w.reshape(lowered, (mask.shape[0], *(1,) * (rank - 2), mask.shape[1]))
    return lowered


def _far(w: Writer, node: Node) -> float:
    """How far below the others a score is nothing; moderate, so that it fits and exp stays exact."""
    largest = w.statistic(node, "score_abs")
    return FAR if largest is None else 4.0 * 2.0 ** math.ceil(math.log2(max(largest, 1.0))) + NEGLIGIBLE


def divided(w: Writer, x: Value, total: Value, largest: float) -> Value:
    """x / total with 1 <= total <= largest: both are brought nearer to 1 by half of what separates them."""
    half = 2.0 ** -(math.ceil(math.log2(max(largest, 1))) // 2)
    inverse = w.reciprocal(w.step(total, half))
    return w.mul(w.step(x, half), inverse)
