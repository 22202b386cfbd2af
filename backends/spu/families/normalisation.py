"""Softmax and the norms, in forms that keep every intermediate value in range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers, number
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]
VARIANCES = ("variance_min", "variance_max")
MEAN_OF_SUM = 32.0  # where the sum of squares of a norm should lie: neither root nor rows lose bits then
LARGEST_SUM = 2.0**11  # the same for its bound, which is 8 to 16 times the largest that calibration saw


def powers(w: Writer, x: Value, dim: int) -> tuple[Value, Value]:
    """(e^(x - largest), its sum along `dim`, kept as a dimension)."""
    power = w.unary("exponential", w.sub(x, w.reduce("maximum", x, [dim], keepdim=True)))
    return power, w.reduce("add", power, [dim], keepdim=True)


@emits("softmax")
def _softmax(w: Writer, node: Node, inputs: Inputs) -> Value:
    dim = integers(node, "dim")[0]
    power, total = powers(w, inputs[0], dim)
    return w.mul(power, w.reciprocal(total))


def _step(w: Writer, node: Node, width: int) -> float:
    """A power of two: with it the sum of squares of a row lies around MEAN_OF_SUM."""
    bound = w.largest_sums.get(node.name)
    if bound:
        return 2.0 ** math.floor(0.5 * math.log2(LARGEST_SUM / bound))
    low, high = (w.statistic(node, key) for key in VARIANCES)
    if low is None or high is None or high <= 0:
        return 1.0
    middle = math.sqrt(max(low, high * 2.0**-16) * high) * width
    return 2.0 ** round(0.5 * math.log2(MEAN_OF_SUM / middle))


def _normalised(w: Writer, node: Node, x: Value, gain: float) -> Value:
    """gain x / sqrt(mean(x^2) + eps), as sqrt(width) y / sqrt(sum(y^2) + ..) with y = step x."""
    last, width = len(x.shape) - 1, x.shape[-1]
    step = _step(w, node, width)
    y = _by_position(w, node, x, lambda part, lift: w.step(part, step * lift))
    total = w.reduce("add", w.mul(y, y), [last], keepdim=True)
    eps = number(node, "eps", 0.0) * width * step * step
    least = 2.0**-17  # one unit: a constant row is no division by 0
    total = _by_position(w, node, total, lambda part, lift: w.shift(part, max(eps * lift * lift, least)))
    root = w.scale(w.unary("rsqrt", total), gain * math.sqrt(width))
    return w.mul(y, root)


def _by_position(w: Writer, node: Node, x: Value, function: Callable[[Value, float], Value]) -> Value:
    """`function` of what stands at the first positions (with 1) and at those that are lifted (with the factor)."""
    if node.attr("lifted") is None:
        return function(x, 1.0)
    first, steps = integers(node, "lifted")
    parts = [w.slice(x, 1, 0, first), w.slice(x, 1, first, x.shape[1])]
    return w.concat([function(part, factor) for part, factor in zip(parts, (1.0, 2.0**steps), strict=True)], 1)


@emits("layer_norm", reads=VARIANCES)
def _layer_norm(w: Writer, node: Node, inputs: Inputs) -> Value:
    x = inputs[0]
    mean = w.scale(w.reduce("add", x, [len(x.shape) - 1], keepdim=True), 1.0 / x.shape[-1])
    result = _normalised(w, node, w.sub(x, mean), 1.0)
    for vector, op in zip(inputs[1:], ("multiply", "add"), strict=False):
        result = w.binary(op, result, vector)
    return result


@emits("rms_norm", reads=VARIANCES)
def _rms_norm(w: Writer, node: Node, inputs: Inputs) -> Value:
    result = _normalised(w, node, inputs[0], number(node, "gain", 1.0))
    return w.mul(result, inputs[1]) if len(inputs) > 1 else result
