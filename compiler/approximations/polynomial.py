"""Polynomials on an interval: fitting in float64 and evaluation from ring primitives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

Floats = NDArray[np.float64]
_GRID = 2001
MAX_PRODUCT_BITS = 60


@lru_cache(maxsize=64)
def fit_minimax(
    function: Callable[[Floats], Floats], low: float, high: float, degree: int
) -> tuple[tuple[float, ...], float]:
    """Near-minimax fit of `function` on [low, high].

    Returns the coefficients (constant first) in the variable u = 2 (x - low) / (high - low) - 1, in which they stay
    small, and the largest error on a dense grid. Method: Lawson's iteratively reweighted least squares.
    """
    u = np.cos(np.linspace(0.0, np.pi, _GRID))
    target = function((u + 1) * (high - low) / 2 + low)
    basis = np.polynomial.chebyshev.chebvander(u, degree)
    weight = np.full(_GRID, 1.0 / _GRID)
    best, best_error = np.zeros(degree + 1), np.inf
    for _ in range(80):
        root = np.sqrt(weight)
        coefficients = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)[0]
        error = np.abs(basis @ coefficients - target)
        if error.max() < best_error:
            best, best_error = coefficients, float(error.max())
        weight = weight * (error + 1e-3 * best_error)
        weight /= weight.sum()
    monomials = np.polynomial.chebyshev.cheb2poly(best)
    return tuple(float(c) for c in monomials), best_error


def evaluate(b: Builder, u: RingNode, coefficients: Sequence[float], *, bound: float, lean: bool = False) -> RingNode:
    """The polynomial at `u` in [-1, 1], at u's scale; |result| <= `bound`.

    With `lean` every truncation works on small integers (two scales and no more), which lets it be a local one;
    otherwise the upper half of the polynomial is multiplied untruncated, which saves one safe truncation.

    Paterson-Stockmeyer with powers up to u^4: degree 8 takes four products in three levels. Sums of powers with public
    coefficients are free: they are formed at the scale of the product they are added to and truncated once.
    """
    f = u.type.frac_bits
    degree = len(coefficients) - 1
    powers = _powers(b, u, min(degree, 4))
    if degree <= 4:
        return b.rescale(_combine(b, powers, coefficients, u), f, bound=bound)
    block = 4
    starts = list(range(0, degree, block))
    if degree - starts[-1] < 1:
        starts.pop()
    head = starts.pop()
    accumulator = _combine(b, powers, coefficients[head:], u)
    for start in reversed(starts):
        if lean or accumulator.type.int_bits + f > MAX_PRODUCT_BITS:
            accumulator = b.rescale(accumulator, f)
        product = b.mul(accumulator, powers[block - 1])
        low = b.rescale(_combine(b, powers, coefficients[start : start + block], u), product.type.frac_bits)
        accumulator = b.rescale(b.add(product, low), f, bound=bound if start == 0 else None)
    return accumulator


def _powers(b: Builder, u: RingNode, highest: int) -> list[RingNode]:
    """[u, u^2, ... u^highest] at u's scale, in as few levels as possible."""
    f = u.type.frac_bits
    powers = [u]
    for n in range(2, highest + 1):
        left, right = powers[n // 2 - 1], powers[n - n // 2 - 1]
        powers.append(b.rescale(b.mul(left, right), f, bound=1.0))
    return powers


def _combine(b: Builder, powers: Sequence[RingNode], coefficients: Sequence[float], u: RingNode) -> RingNode:
    """c0 + c1 u + c2 u^2 ... at twice u's scale."""
    f = u.type.frac_bits
    total = b.const(coefficients[0], u.type.shape, 2 * f)
    for power, c in zip(powers, coefficients[1:], strict=False):
        total = b.add(total, b.mul_int(power, round(c * 2.0**f), f))
    return total
