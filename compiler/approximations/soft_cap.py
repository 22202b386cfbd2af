"""cap tanh(x / cap): x times a polynomial in x^2, where x stays within a few caps; else by tanh itself."""

from __future__ import annotations

import math

import numpy as np

from mpcc.compiler.approximations.polynomial import Floats, evaluate, fit_minimax
from mpcc.compiler.approximations.sigmoid import tanh
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

_INNER_BITS = 20
_TOLERANCE = 2.0**-16  # of the polynomial, which is 1 at most
_DEGREES = range(1, 9)
_MOST_CAPS = 4.0  # beyond, no polynomial of these degrees is close enough


def polynomial(bound: float, cap: float) -> tuple[float, ...] | None:
    """tanh(t) / t with t = r sqrt(w), r = bound / cap: a polynomial in 2 w - 1 for w in [0, 1]; None if r is large."""
    r = bound / cap
    if r > _MOST_CAPS:
        return None

    def bend(w: Floats) -> Floats:
        t = np.maximum(r * np.sqrt(w), 1e-9)
        return np.tanh(t) / t

    for degree in _DEGREES:
        coefficients, error = fit_minimax(bend, 0.0, 1.0, degree)
        if error <= _TOLERANCE:
            return coefficients
    return coefficients if error <= 16 * _TOLERANCE else None


def soft_cap_error(bound: float, cap: float, frac_bits: int) -> float:
    """Bound of the absolute error for |x| <= bound."""
    return (
        bound * (16 * _TOLERANCE + 2.0 ** (4 - _INNER_BITS))
        + 2.0**-frac_bits
        + cap * 2.0**-12 * (bound > _MOST_CAPS * cap)
    )


def soft_cap(b: Builder, x: RingNode, cap: float) -> RingNode:
    """cap tanh(x / cap) at x's scale, for x within its bound; error `soft_cap_error`."""
    bound = 2.0 ** math.ceil(math.log2(x.type.bound))
    coefficients, f = polynomial(bound, cap), x.type.frac_bits
    limit = min(x.type.bound, 1.01 * cap)
    if coefficients is None:
        bent = tanh(b, b.rescale(b.scale(x, 1.0 / cap, 24), f))
        return b.rescale(b.scale(bent, cap, 12), f, bound=limit)
    part = b.reinterpret(b.rescale(x, min(f, _INNER_BITS)), int(math.log2(bound)))
    square = b.rescale(b.mul(part, part, bound=1.0), _INNER_BITS, bound=1.0)
    u = b.add_const(b.mul_int(square, 2), -1.0, bound=1.0)
    return b.rescale(b.mul(x, evaluate(b, u, coefficients, bound=1.01), bound=limit), f, bound=limit)
