"""What is done to an output before it is opened."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.backends.spu.writer import Value, Writer, emits, integers
from mpcc.compiler.graph.ir import Node

Inputs = Sequence[Value]


@emits("argmax")
def _argmax(w: Writer, node: Node, inputs: Inputs) -> Value:
    """A tournament of neighbours, as compiler/approximations/argmax.py has it."""
    x, level = inputs[0], 0
    dim = len(x.shape) - 1
    position = w.constant(0.0, x.shape)
    while (size := x.shape[dim]) > 1:
        pairs = size // 2
        left, right, first, second = (w.slice(v, dim, side, 2 * pairs, 2) for v in (x, position) for side in (0, 1))
        less = w.negative(w.sub(left, right))
        winners = w.select(less, right, left), w.select(less, w.shift(second, 2.0**level), first)
        rest = [[w.slice(v, dim, size - 1, size)] if size % 2 else [] for v in (x, position)]
        x, position = (w.concat([winner, *last], dim) for winner, last in zip(winners, rest, strict=True))
        level += 1
    return w.reshape(position, node.type.shape)


@emits("round_nearest")
def _round_nearest(w: Writer, node: Node, inputs: Inputs) -> Value:
    unit = 2.0 ** integers(node, "frac_bits")[0]
    return w.scale(w.unary("floor", w.shift(w.scale(inputs[0], unit), 0.5)), 1.0 / unit)
