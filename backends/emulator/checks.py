"""Overflow detection: does the true result of a primitive fit the ring?

The extents of the operands prove most results safe without looking at the data; only where they cannot is the result
computed a second time, in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpcc.backends.emulator.semantics import without_blocks
from mpcc.compiler.fixed import HEADROOM_BITS, RING_BITS
from mpcc.compiler.ring.ir import RingNode

Int64 = NDArray[np.int64]
Extent = tuple[int, int]
LIMIT = 2 ** (RING_BITS - 1)


def reached(node: RingNode, args: list[Int64], extents: list[Extent]) -> tuple[float, float] | None:
    """(magnitude reached, limit) if the true result of `node` on `args` is out of range, else None."""
    if node.op == "lt":
        return _beyond(_magnitude(extents[0]), 2 ** (node.int_attr("bits") - 1))
    if node.op == "trunc":
        return _beyond(_magnitude(extents[0]), 2 ** (RING_BITS - HEADROOM_BITS))
    if node.op == "mul_const":
        return _exact(sorted(e * int(node.int_attr("value")) for e in extents[0]))
    if node.op in ("add", "sub"):
        return _add_or_sub(node.op, args, extents)
    if node.op not in _TRUE_VALUE or _magnitude_bound(node, args, extents) < LIMIT:
        return None
    true = _TRUE_VALUE[node.op](node, [a.astype(np.float64) for a in args])
    low, high = float(true.min()), float(true.max())
    return (max(-low, high), float(LIMIT)) if high >= LIMIT or low < -LIMIT else None


def _magnitude(extent: Extent) -> int:
    return max(-extent[0], extent[1])


def _beyond(magnitude: int, limit: int) -> tuple[float, float] | None:
    return (float(magnitude), float(limit)) if magnitude >= limit else None


def _exact(extent: list[int]) -> tuple[float, float] | None:
    low, high = extent
    return (float(max(-low, high)), float(LIMIT)) if high >= LIMIT or low < -LIMIT else None


def _add_or_sub(op: str, args: list[Int64], extents: list[Extent]) -> tuple[float, float] | None:
    """Exact, by the signs of operands and wrapped result."""
    a, b = args
    if _magnitude(extents[0]) + _magnitude(extents[1]) < LIMIT:
        return None
    wrapped = (a ^ (a + b)) & (b ^ (a + b)) if op == "add" else (a ^ b) & (a ^ (a - b))
    if not (wrapped < 0).any():
        return None
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(x + y if op == "add" else x - y).max()), float(LIMIT)


def _magnitude_bound(node: RingNode, args: list[Int64], extents: list[Extent]) -> int:
    """An upper bound of |result| that only needs the extents of the operands."""
    sizes = [_magnitude(e) for e in extents]
    if node.op == "sum":
        return sizes[0] * int(args[0].shape[node.int_attr("dim")])
    terms = 1 if node.op == "mul" else int(args[0].shape[-1])
    return sizes[0] * sizes[1] * terms


_TRUE_VALUE = {
    "mul": lambda node, x: x[0] * x[1],
    "sum": lambda node, x: x[0].sum(axis=node.int_attr("dim")),
    "dot": lambda node, x: np.einsum("...i,...i->...", x[0], x[1]),
    "matmul": lambda node, x: np.matmul(x[0], x[1]),
    "block_matmul": lambda node, x: np.matmul(without_blocks(x[0], node.int_attr("block")), x[1]),
}
