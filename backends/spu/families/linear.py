"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]


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
