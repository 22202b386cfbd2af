"""Operations that move data."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]


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
