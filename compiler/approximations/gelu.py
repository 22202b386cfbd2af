"""GELU: even polynomials on [-4, 4] to [-9, 9], or one of degree 8 in |x| for any argument; see even.py."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, sqrt

import numpy as np

from mpcc.compiler.approximations.chain import SQUARE, Floats, Step, of_square
from mpcc.compiler.approximations.even import INNER_FRAC_BITS, Chain, HalfEven
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

_erf = np.vectorize(erf, otypes=[np.float64])


def gelu_exact(x: Floats) -> Floats:
    """x Phi(x)."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / sqrt(2.0))))


def gelu_tanh(x: Floats) -> Floats:
    """The tanh form of GELU used by GPT-2 (Hendrycks and Gimpel, eq. 2)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


EXACT: dict[str, Callable[[Floats], Floats]] = {"none": gelu_exact, "tanh": gelu_tanh}


def eighth(
    sign: int, p4: float, p2: float, b: float, p3: float, d: float, e: float, c0: float, c1: float, c2: float, c3: float
) -> tuple[Step, ...]:
    """Degree 8 in three products: w1 = v^2, w2 = w1 (p4 w1 + p2 v + p3) + d v + e, w2 (sign w2 + b w1) + ..."""
    return (SQUARE, Step((0, 0, 1), (p3, p2, p4), (e, d)), Step((0, 0, 0, 1), (0, 0, b, sign), (c3, c2, c1, c0)))


# Fitted by benchmarks/fit_approximations.py; multipliers inside products have at most three fractional bits.
# d(4 v) / 4 for v in [0, 1]
TAIL = {
    "none": eighth(
        -1,
        -1.0,
        3.375,
        -1.625,
        -3.677228287,
        0.8076172083,
        -0.0216587114,
        -0.9517174744,
        -1.2833103561,
        0.2396938984,
        -0.0201829316,
    ),
    "tanh": eighth(
        -1,
        1.0,
        -3.25,
        -1.0,
        2.3385665758,
        -0.6489246222,
        -0.1750114092,
        0.3825151367,
        0.0091166535,
        -0.0200191097,
        0.0975336383,
    ),
}
# (gelu(4 t) - 2 t) / 4 for t in [-1, 1], in t^2
EVEN_4 = {
    "none": of_square(
        *eighth(
            -1,
            0.875,
            -2.5,
            -0.375,
            2.4755140121,
            -1.3649550649,
            1.0671672274,
            1.3550314489,
            0.0434399284,
            0.5275559637,
            -0.3071682412,
        )
    ),
    "tanh": of_square(
        *eighth(
            -1,
            1.25,
            -3.125,
            0.5,
            3.1309065638,
            -1.3119320351,
            0.1102869023,
            -0.5602061075,
            -0.1391672151,
            0.5714522865,
            0.0739294551,
        )
    ),
}
# (gelu(8 t) - 4 t) / 8 for t in [-1, 1], of degree 16 in t^2
EVEN_8 = {
    "none": of_square(
        SQUARE,
        Step((0, 0, 1), (-5.386932817, 7.0, -2.75), (0, 2.8240625048)),
        Step((0, -0.75, -1.0, 1), (0, -4.25, -2.0, 4.75), (-0.6255153902, 0.761352039, 2.0640709045, -1.6171866364)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.7552269706, 0.2783091982, -0.1987113968, 0.24448965, -1.8329084449)
        ),
    ),
    "tanh": of_square(
        SQUARE,
        Step((0, 0, 1), (-5.4219310997, 7.0, -2.75), (0, 2.652273491)),
        Step((0, -0.5, -1.0, 1), (0, -3.75, -1.75, 4.75), (-0.5960444004, 0.5487134976, 2.0256505962, -1.6337167941)),
        Step(
            (0, 0, 0, 0, 1),
            (0, 0, 0.25, 0, -1),
            (-0.7032315808, 0.3247173617, 0.0215128452, 0.2435615944, -1.7759127474),
        ),
    ),
}
# the same for t in [-9/8, 9/8]
EVEN_9 = {
    "none": of_square(
        SQUARE,
        Step((0, 0, 1), (-4.9511980747, 5.5, -1.75), (0, 3.128603564)),
        Step((0, -0.5, -1.25, 1), (0, -4.0, -2.0, 3.5), (-0.6360826672, 1.0739451081, 1.7803426146, -1.5845302324)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.7672315809, 0.2675571421, -0.2235458304, 0.2189971833, -1.8423548048)
        ),
    ),
    "tanh": of_square(
        SQUARE,
        Step((0, 0, 1), (-4.952458236, 5.5, -1.75), (0, 3.1295569358)),
        Step((0, -0.5, -1.25, 1), (0, -4.0, -2.0, 3.5), (-0.6824303789, 1.0639205398, 1.7747339016, -1.576761037)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.8554392229, 0.2660673857, -0.2235158981, 0.219620435, -1.9360401021)
        ),
    ),
}
GELU = {
    form: HalfEven(
        EXACT[form],
        (Chain(4.0, 2, EVEN_4[form]), Chain(8.0, 3, EVEN_8[form]), Chain(9.0, 3, EVEN_9[form])),
        Chain(4.0, 2, TAIL[form]),
    )
    for form in EXACT
}


def gelu(b: Builder, x: RingNode, *, form: str = "none", inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
    """GELU for any x within its bound, at x's scale and one bit more; see HalfEven.evaluate_anywhere."""
    return GELU[form].evaluate_anywhere(b, x, inner_frac_bits)


def quad_error(frac_bits: int) -> float:
    """Bound of the absolute error against quad's own formula: one rounding."""
    return 2.0**-frac_bits


def quad(b: Builder, x: RingNode) -> RingNode:
    """x^2/8 + x/4 + 1/2 (MPCFormer) at x's scale; error `quad_error`."""
    f = x.type.frac_bits
    square = b.reinterpret(b.mul(x, x), 3)
    linear = b.mul_int(x, 2 ** (f + 1), f + 3)
    return b.rescale(b.add_const(b.add(square, linear), 0.5), f)
