"""Strided views: where the elements of a logical array lie in a vector register or in memory.

A view is an offset and one stride per dimension. Reshapes, permutations, slices and expansions of a view are views
again whenever strides can say it, so they cost no instruction; only what cannot be expressed is gathered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Dims = tuple[tuple[int, int], ...]  # (size, stride), outermost first


@dataclass(frozen=True)
class View:
    """Element (i, j, ...) lies at offset + i * strides[0] + j * strides[1] + ..."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def permute(self, dims: tuple[int, ...]) -> View:
        return View(tuple(self.shape[d] for d in dims), tuple(self.strides[d] for d in dims), self.offset)

    def slice(self, dim: int, start: int, stop: int, step: int) -> View:
        size = len(range(start, stop, step))
        shape = tuple(size if d == dim else s for d, s in enumerate(self.shape))
        strides = tuple(s * step if d == dim else s for d, s in enumerate(self.strides))
        return View(shape, strides, self.offset + start * self.strides[dim])

    def expand(self, shape: tuple[int, ...]) -> View:
        strides = tuple(0 if old != new else s for old, new, s in zip(self.shape, shape, self.strides, strict=True))
        return View(shape, strides, self.offset)

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in row-major order with another shape, or None if strides cannot express it."""
        groups = _matching_groups(self.shape, shape)
        strides: list[int] = []
        for olds, news in groups:
            merged = merge_dims(tuple((self.shape[d], self.strides[d]) for d in olds))
            if len(merged) > 1:
                return None
            stride = merged[0][1] if merged else 0
            inner = math.prod(shape[d] for d in news)
            for d in news:
                inner //= shape[d]
                strides.append(stride * inner)
        return View(shape, tuple(strides), self.offset)

    def walk(self, order: tuple[int, ...]) -> Dims:
        """The (size, stride) list that visits all elements with order[0] outermost; adjacent dimensions merged."""
        return merge_dims(tuple((self.shape[d], self.strides[d]) for d in order))

    def is_dense(self, order: tuple[int, ...]) -> bool:
        """Whether visiting in `order` walks consecutive positions."""
        dims = self.walk(order)
        return not dims or (len(dims) == 1 and dims[0][1] == 1)

    def natural_order(self) -> tuple[int, ...]:
        """Dimensions by falling stride: the order in which the elements lie (expanded and unit ones last to first)."""
        ranked = sorted(range(len(self.shape)), key=lambda d: (-self.strides[d] if self.shape[d] > 1 else 0, d))
        return tuple(ranked)


def dense(shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> View:
    """A packed view whose elements lie with order[0] outermost (row-major by default)."""
    strides = [0] * len(shape)
    step = 1
    for d in reversed(order or tuple(range(len(shape)))):
        strides[d] = step
        step *= shape[d]
    return View(shape, tuple(strides))


def merge_dims(dims: Dims) -> Dims:
    """Drop dimensions of size 1 and join neighbours that together walk with one stride."""
    result: list[tuple[int, int]] = []
    for size, stride in dims:
        if size == 1:
            continue
        if result and result[-1][1] == size * stride:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return tuple(result)


def _matching_groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of consecutive old and new dimensions with equal element counts."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [], []
        left = right = 1
        if i < len(old):
            olds, left, i = [i], old[i], i + 1
        if j < len(new):
            news, right, j = [j], new[j], j + 1
        while left != right:
            if left < right:
                olds.append(i)
                left, i = left * old[i], i + 1
            else:
                news.append(j)
                right, j = right * new[j], j + 1
        groups.append((olds, news))
    return groups
