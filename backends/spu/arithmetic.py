"""Arithmetic, products, layout and sums: each is one operation of StableHLO, or a few."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers, number
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


# ** products **
@emits("linear")
def _linear(w: Writer, node: Node, inputs: Inputs) -> Value:
    x = w.reshape(inputs[0], (math.prod(inputs[0].shape[:-1]), inputs[0].shape[-1]))
    product = w.matmul(x, w.transpose(inputs[1]))
    if len(inputs) > 2:
        product = w.add(product, inputs[2])
    return w.reshape(product, node.type.shape)


@emits("linear_diagonal")
def _linear_diagonal(w: Writer, node: Node, inputs: Inputs) -> Value:
    x, r, weight = inputs[:3]
    tokens, (out, columns), block = math.prod(r.shape[:-1]), weight.shape, integers(node, "block")[0]
    dense = w.slice(weight, 1, 0, columns - block, 1)
    product = w.matmul(w.reshape(x, (tokens, columns - block)), w.transpose(dense))
    blocks = w.reshape(w.slice(weight, 1, columns - block, columns, 1), (out // block, block, block))
    parts = w.permute(w.reshape(r, (tokens, out // block, block)), (1, 0, 2))
    own = w.permute(w.matmul(parts, w.permute(blocks, (0, 2, 1))), (1, 0, 2))
    product = w.add(product, w.reshape(own, (tokens, out)))
    if len(inputs) > 3:
        product = w.add(product, inputs[3])
    return w.reshape(product, node.type.shape)


@emits("matmul")
def _matmul(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.matmul(inputs[0], inputs[1])


# ** layout **
@emits("reshape")
def _reshape(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.reshape(inputs[0], node.type.shape)


@emits("permute")
def _permute(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.permute(inputs[0], integers(node, "dims"))


@emits("expand")
def _expand(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.expand(inputs[0], node.type.shape)


@emits("slice")
def _slice(w: Writer, node: Node, inputs: Inputs) -> Value:
    dim, start, stop, step = (integers(node, key)[0] for key in ("dim", "start", "stop", "step"))
    return w.slice(inputs[0], dim, start, stop, step)


@emits("concat")
def _concat(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.concat(inputs, integers(node, "dim")[0])


# ** sums **
@emits("sum")
def _sum(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.reduce("add", inputs[0], integers(node, "dims"), keepdim=node.attr("keepdim") is True)


@emits("mean")
def _mean(w: Writer, node: Node, inputs: Inputs) -> Value:
    dims = integers(node, "dims")
    count = math.prod(inputs[0].shape[d] for d in dims)
    return w.scale(_sum(w, node, inputs), 1.0 / count)
