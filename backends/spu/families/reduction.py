"""Sums and means over dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]


@emits("sum")
def _sum(w: Writer, node: Node, inputs: Inputs) -> Value:
    return w.reduce("add", inputs[0], integers(node, "dims"), keepdim=node.attr("keepdim") is True)


@emits("mean")
def _mean(w: Writer, node: Node, inputs: Inputs) -> Value:
    dims = integers(node, "dims")
    count = math.prod(inputs[0].shape[d] for d in dims)
    return w.scale(_sum(w, node, inputs), 1.0 / count)
