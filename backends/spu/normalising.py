"""Softmax, attention and the norms, in forms that keep every intermediate value in range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.bounds import SUM_MAX
from mpcc.backends.spu.writer import Value, Writer, emits, integers, number, statistic
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]
FAR = 1024.0  # how far below the others a masked score is put when calibration has not said more
NOTHING = 32.0  # e^-32 of the largest weight is nothing in fixed point
MEAN_OF_SUM = 32.0  # where the sum of squares of a norm should lie: neither root nor rows lose bits then
LARGEST_SUM = 2.0**11  # the same for its bound, which is 8 to 16 times the largest that calibration saw


# ** softmax **
def _powers(w: Writer, x: Value, dim: int) -> tuple[Value, Value]:
    """(e^(x - largest), its sum along `dim`, kept as a dimension)."""
    power = w.unary("exponential", w.sub(x, w.reduce("maximum", x, [dim], keepdim=True)))
    return power, w.reduce("add", power, [dim], keepdim=True)


def _divided(w: Writer, x: Value, total: Value, length: int) -> Value:
    """x / total with 1 <= total <= length: both are brought nearer to 1 by half of what separates them."""
    half = 2.0 ** -(math.ceil(math.log2(max(length, 1))) // 2)
    inverse = w.reciprocal(w.step(total, half))
    return w.mul(w.step(x, half), inverse)


@emits("softmax")
def _softmax(w: Writer, node: Node, inputs: Inputs) -> Value:
    dim = integers(node, "dim")[0]
    power, total = _powers(w, inputs[0], dim)
    return w.mul(power, w.reciprocal(total))


@emits("attention")
def _attention(w: Writer, node: Node, inputs: Inputs) -> Value:
    """(e^(scores - largest) V) / sum: the division takes place on S x d elements instead of S x S."""
    query, key, value = inputs[:3]
    scores = w.matmul(w.scale(query, number(node, "scale")), w.transpose(key))
    if len(inputs) > 3:
        scores = w.add(scores, _mask(w, node, inputs[3], len(scores.shape)))
    power, total = _powers(w, scores, len(scores.shape) - 1)
    return _divided(w, w.matmul(power, value), total, key.shape[-2])


def _mask(w: Writer, node: Node, mask: Value, rank: int) -> Value:
    """What to add to the scores: 0, or `far` below them, which is moderate so that it fits and exp stays exact."""
    largest = statistic(node, "score_abs")
    far = FAR if largest is None else 4.0 * 2.0 ** math.ceil(math.log2(max(largest, 1.0))) + NOTHING
    kind = node.attr("mask")
    if kind == "additive":
        return w.binary("maximum", mask, w.constant(-far, mask.shape))
    lowered = w.scale(w.shift(mask, -1.0), far)
    if kind == "key":
        return w.reshape(lowered, (mask.shape[0], *(1,) * (rank - 2), mask.shape[1]))
    return lowered


# ** norms **
def _step(node: Node, width: int) -> float:
    """A power of two: with it the sum of squares of a row lies around MEAN_OF_SUM."""
    bound = statistic(node, SUM_MAX)
    if bound:
        return 2.0 ** math.floor(0.5 * math.log2(LARGEST_SUM / bound))
    low, high = statistic(node, "variance_min"), statistic(node, "variance_max")
    if low is None or high is None or high <= 0:
        return 1.0
    middle = math.sqrt(max(low, high * 2.0**-16) * high) * width
    return 2.0 ** round(0.5 * math.log2(MEAN_OF_SUM / middle))


def _normalised(w: Writer, node: Node, x: Value, gain: float) -> Value:
    """gain x / sqrt(mean(x^2) + eps), as sqrt(width) y / sqrt(sum(y^2) + ..) with y = step x."""
    last, width = len(x.shape) - 1, x.shape[-1]
    step = _step(node, width)
    y = w.step(x, step)
    total = w.reduce("add", w.mul(y, y), [last], keepdim=True)
    eps = max(number(node, "eps", 0.0) * width * step * step, 2.0**-17)  # one unit: a constant row is no division by 0
    root = w.scale(w.unary("rsqrt", w.shift(total, eps)), gain * math.sqrt(width))
    return w.mul(y, root)


@emits("layer_norm")
def _layer_norm(w: Writer, node: Node, inputs: Inputs) -> Value:
    x = inputs[0]
    mean = w.scale(w.reduce("add", x, [len(x.shape) - 1], keepdim=True), 1.0 / x.shape[-1])
    result = _normalised(w, node, w.sub(x, mean), 1.0)
    for vector, op in zip(inputs[1:], ("multiply", "add"), strict=False):
        result = w.binary(op, result, vector)
    return result


@emits("rms_norm")
def _rms_norm(w: Writer, node: Node, inputs: Inputs) -> Value:
    result = _normalised(w, node, inputs[0], number(node, "gain", 1.0))
    return w.mul(result, inputs[1]) if len(inputs) > 1 else result
