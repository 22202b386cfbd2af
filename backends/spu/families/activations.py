"""Functions of one number. They are meant for exp as SPU's Pade form, whose argument must not be large and positive."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, number
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]
_NATIVE = {"exp": "exponential", "rsqrt": "rsqrt", "sqrt": "sqrt"}


@emits(*_NATIVE)
def _native(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.unary(_NATIVE[node.op], inputs[0])


@emits("reciprocal")
def _reciprocal(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.reciprocal(inputs[0])


@emits("relu")
def _relu(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.binary("maximum", inputs[0], w.constant(0.0, inputs[0].shape))


@emits("leaky_relu")
def _leaky_relu(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.select_negative(inputs[0], w.scale(inputs[0], number(node, "slope")), inputs[0])


def sigmoid(w: Writer, x: Value) -> Value:
    """With t = e^-|x|: 1 / (1 + t) where x >= 0, else one minus that. The divisor lies in [1, 2]."""
    power = w.unary("exponential", w.select_negative(x, x, w.unary("negate", x)))
    upper = w.reciprocal(w.shift(power, 1.0))
    return w.select_negative(x, w.shift(w.unary("negate", upper), 1.0), upper)


@emits("sigmoid")
def _sigmoid(w: Writer, node: Node, inputs: Inputs) -> Value:
    return sigmoid(w, inputs[0])


@emits("silu")
def _silu(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.mul(inputs[0], sigmoid(w, inputs[0]))


@emits("tanh")
def _tanh(w: Writer, node: Node, inputs: Inputs) -> Value:
    """2 sigmoid(2 x) - 1."""
    return w.shift(w.scale(sigmoid(w, w.scale(inputs[0], 2.0)), 2.0), -1.0)


@emits("gelu")
def _gelu(w: Writer, node: Node, inputs: Inputs) -> Value:
    """x/2 (1 + erf(x / sqrt 2)), or x sigmoid(2 u) with u = sqrt(2/pi) (x + 0.044715 x^3)."""
    x = inputs[0]
    if node.attr("approximate") != "tanh":
        half = w.scale(x, 0.5)
        return w.add(half, w.mul(half, w.erf(w.scale(x, math.sqrt(0.5)))))
    root = math.sqrt(2.0 / math.pi)
    inner = w.shift(w.scale(w.mul(x, x), 2.0 * root * 0.044715), 2.0 * root)
    return w.mul(x, sigmoid(w, w.mul(x, inner)))
