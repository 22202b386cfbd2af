"""Arithmetic, element by element: each is one operation of StableHLO, or a few."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, number
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]
_BINARY = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}


@emits(*_BINARY)
def _binary(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.binary(_BINARY[node.op], inputs[0], inputs[1])


@emits("scale")
def _scale(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.scale(inputs[0], number(node, "factor"))


@emits("shift")
def _shift(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.shift(inputs[0], number(node, "offset"))


@emits("square")
def _square(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.mul(inputs[0], inputs[0])


@emits("where")
def _where(w: Writer, node: Node, inputs: Inputs) -> Value:
    """b + condition (a - b); conditions are zeros and ones."""
    condition, a, b = inputs
    return w.add(b, w.mul(condition, w.sub(a, b)))


@emits("cast")
def _cast(w: Writer, node: Node, inputs: Inputs) -> Value:
    return inputs[0]  # every value is a fixed-point number
