"""The primitives of the ring IR on wrap-around int64 arrays: pure functions, no checks.

Shapes are those of the ring IR; results of layout operations may be views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.errors import InternalError
from mpcc.compiler.fixed import RING_BITS
from mpcc.compiler.ring.ir import RingNode

Int64 = NDArray[np.int64]


def wrap(value: int) -> np.int64:
    """A Python integer modulo 2^64, as the signed representative."""
    return np.int64((value + 2 ** (RING_BITS - 1)) % 2**RING_BITS - 2 ** (RING_BITS - 1))


def trunc_nearest(v: Int64, bits: int) -> Int64:
    """floor((v + 2^(bits-1)) / 2^bits), without the overflow that the formula has near 2^63."""
    return (v >> np.int64(bits)) + ((v >> np.int64(bits - 1)) & np.int64(1))


def trunc_probabilistic(v: Int64, bits: int, rng: np.random.Generator) -> Int64:
    """floor(v / 2^bits), plus 1 with probability (v mod 2^bits) / 2^bits: unbiased, error below one unit."""
    fraction = v & np.int64((1 << bits) - 1)
    if bits <= 32:
        draw = rng.integers(0, 2**32, size=v.shape, dtype=np.uint32) >> np.uint32(32 - bits)
        up = np.asarray(draw).astype(np.int64) < fraction
    else:
        wide = rng.integers(0, 2**64, size=v.shape, dtype=np.uint64, endpoint=False) >> np.uint64(64 - bits)
        up = np.asarray(wide).astype(np.int64) < fraction
    return (v >> np.int64(bits)) + up


def less_than_zero(v: Int64, bits: int) -> Int64:
    """The sign bit of v taken as a `bits`-bit number: 1 where v < 0, if |v| < 2^(bits-1)."""
    return (v >> np.int64(bits - 1)) & np.int64(1)


def select(c: Int64, a: Int64, b: Int64) -> Int64:
    """a where c is 1, b where c is 0, as one product: c (a - b) + b."""
    return c * (a - b) + b


def dot(a: Int64, b: Int64) -> Int64:
    """Sum of a * b over the last dimension, which is kept with size 1."""
    return np.asarray(np.einsum("...i,...i->...", a, b))[..., np.newaxis]


def without_blocks(a: NDArray[Any], block: int) -> NDArray[Any]:
    """[n, k + block] with a block-diagonal matrix as last columns -> [n, k + n] with all its zeros."""
    rows, inner = a.shape
    full = np.zeros((rows, inner - block + rows), dtype=a.dtype)
    full[:, : inner - block] = a[:, : inner - block]
    columns = inner - block + (np.arange(rows) // block * block)[:, None] + np.arange(block)[None, :]
    full[np.arange(rows)[:, None], columns] = a[:, inner - block :]
    return full


def layout(node: RingNode, parts: list[Int64]) -> Int64:
    """reshape, permute, slice, expand or concat, as the node's `kind` says."""
    kind = node.str_attr("kind")
    first = parts[0]
    if kind == "reshape":
        return first.reshape(node.type.shape)
    if kind == "permute":
        return first.transpose(node.ints_attr("dims"))
    if kind == "expand":
        return np.broadcast_to(first, node.type.shape)
    if kind == "concat":
        return np.concatenate(parts, axis=node.int_attr("dim"))
    if kind == "slice":
        return _slice(node, first)
    raise InternalError(f"{node.name}: unknown layout {kind!r}")


def _slice(node: RingNode, v: Int64) -> Int64:
    start, stop, step = node.int_attr("start"), node.int_attr("stop"), node.int_attr("step")
    index: list[slice] = [slice(None)] * v.ndim
    index[node.int_attr("dim")] = slice(start, None if stop < 0 else stop, step)
    return v[tuple(index)]
