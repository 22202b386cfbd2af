"""GELU = relu(x) + d(|x|), where d(a) = gelu(a) - a is even, smooth and vanishes beyond 4."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np

from mpcc.compiler.approximations.polynomial import Floats, evaluate, fit_minimax
from mpcc.compiler.approximations.sign import clip_above, sign_and_abs
from mpcc.compiler.ring import Builder, RingNode

EDGE = 4.0
DEGREE = 8
LEAN_FRAC_BITS = 12
_erf = np.vectorize(erf, otypes=[np.float64])


def gelu_exact(x: Floats) -> Floats:
    """x Phi(x)."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / sqrt(2.0))))


def gelu_tanh(x: Floats) -> Floats:
    """The tanh form of GELU used by GPT-2 (Hendrycks and Gimpel, eq. 2)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


def _tail_exact(a: Floats) -> Floats:
    return gelu_exact(a) - a


def _tail_tanh(a: Floats) -> Floats:
    return gelu_tanh(a) - a


def gelu_error(form: str, frac_bits: int) -> float:
    """Bound of the absolute error anywhere: fit on [0, 4], the value dropped beyond 4, rounding."""
    tail = _tail_tanh if form == "tanh" else _tail_exact
    _, fit = fit_minimax(tail, 0.0, EDGE, DEGREE)
    return fit + abs(float(tail(np.array([EDGE]))[0])) + 8 * 2.0**-frac_bits


def gelu(b: Builder, x: RingNode, *, form: str = "none", lean: bool = False) -> RingNode:
    """GELU for any x within its bound, at x's scale and one bit more; error `gelu_error` (1.3e-4 and rounding).

    Two comparisons (one where the bound is at most 4), two products without truncation, a polynomial of degree 8 (four
    products; `lean` as in `evaluate`). The bit more comes from halving and is cheaper kept than truncated.
    """
    tail = _tail_tanh if form == "tanh" else _tail_exact
    coefficients, _ = fit_minimax(tail, 0.0, EDGE, DEGREE)
    _, magnitude = sign_and_abs(b, x)
    clipped = clip_above(b, magnitude, EDGE)
    u = b.add_const(b.reinterpret(clipped, 1), -1.0, bound=1.0)  # a / 2 - 1 in [-1, 1], one fractional bit more
    if lean:
        u = b.rescale(u, min(u.type.frac_bits, LEAN_FRAC_BITS), bound=1.0)
    correction = b.rescale(evaluate(b, u, coefficients, bound=0.25, lean=lean), x.type.frac_bits + 1)
    relu = b.reinterpret(b.add(x, magnitude), 1)
    return b.add(relu, correction, bound=x.type.bound)


def quad_error(frac_bits: int) -> float:
    """Bound of the absolute error against quad's own formula: one rounding."""
    return 2.0**-frac_bits


def quad(b: Builder, x: RingNode) -> RingNode:
    """MPCFormer's 0.125 x^2 + 0.25 x + 0.5: another function, for models trained with it."""
    f = x.type.frac_bits
    square = b.reinterpret(b.mul(x, x), 3)
    linear = b.mul_int(x, 2 ** (f + 1), f + 3)
    return b.rescale(b.add_const(b.add(square, linear), 0.5), f)
