"""SiLU: even polynomials on [-5, 5] and [-10, 10], or one of degree 16 in |x| for any argument; see even.py."""

from __future__ import annotations

import numpy as np

from mpcc.compiler.approximations.chain import SQUARE, Floats, Step, of_square
from mpcc.compiler.approximations.even import INNER_FRAC_BITS, Chain, HalfEven
from mpcc.compiler.approximations.gelu import eighth
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode


def silu_exact(x: Floats) -> Floats:
    """x / (1 + e^-x)."""
    return np.asarray(x * 0.5 * (1.0 + np.tanh(x / 2.0)))


def _sixteenth(
    sign: int,
    multipliers: tuple[float, float, float, float, float, float, float],
    second: tuple[float, float],
    third: tuple[float, float, float, float],
    last: tuple[float, float, float, float, float],
) -> tuple[Step, ...]:
    """Degree 16 in four products: w1 = v^2, w2 = w1 (p4 w1 + p2 v + p3) + d v,
    w3 = (w2 + q2 w1 + q1 v) (r3 w2 + r2 w1 + r1 v) + ..., sign w3^2 + ...

    `multipliers` are p4, p2, q2, q1, r3, r2, r1, `second` p3, d; the others are what is added.
    """
    p4, p2, q2, q1, r3, r2, r1 = multipliers
    p3, d = second
    c0, c1, c2, c3, c4 = last
    return (
        SQUARE,
        Step((0, 0, 1), (p3, p2, p4), (0, d)),
        Step((0, q1, q2, 1), (0, r1, r2, r3), third),
        Step((0, 0, 0, 0, 1), (0, 0, 0, 0, sign), (c0, c1, c2, c3, c4)),
    )


# Fitted by benchmarks/fit_approximations.py; multipliers inside products have at most three fractional bits.
# d(16 v) / 16 for v in [0, 3/4], where d(a) = silu(a) - a
TAIL = _sixteenth(
    -1,
    (-0.5, 4.375, -1.25, -2.0, 2.25, -2.875, -4.375),
    (-4.139758427, 4.1596997243),
    (-1.2474801755, 1.3265544084, 0.6131432289, -0.5772892375),
    (-1.1556368487, 0.164914666, 0.0762176841, -0.0759105097, -2.1738508809),
)
# (silu(4 t) - 2 t) / 4 for t in [-5/4, 5/4], in t^2
EVEN_5 = of_square(
    *eighth(
        -1,
        0.125,
        -0.625,
        -0.375,
        0.7550373157,
        -0.7442838599,
        0.9187824684,
        1.3109257793,
        0.020748828,
        0.6039456322,
        -0.3602447078,
    )
)
# (silu(8 t) - 4 t) / 8 for t in [-5/4, 5/4], of degree 16 in t^2
EVEN_10 = of_square(
    *_sixteenth(
        -1,
        (-0.625, 2.5, -1.0, -2.0, 2.375, -1.75, -4.125),
        (-2.5431444304, 3.5852936165),
        (-0.9832288145, 1.0428674219, 1.39182996, -0.8100405357),
        (-1.4911895453, -0.360473234, -0.2573415836, 0.3803098503, -2.499830793),
    )
)
SILU = HalfEven(silu_exact, (Chain(5.0, 2, EVEN_5), Chain(10.0, 3, EVEN_10)), Chain(12.0, 4, TAIL))


def silu(b: Builder, x: RingNode, *, inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
    """SiLU for any x within its bound, at x's scale and one bit more; see HalfEven.evaluate_anywhere."""
    return SILU.evaluate_anywhere(b, x, inner_frac_bits)
