"""GELU from chains of products: even polynomials, over the calibrated range or for any argument.

gelu(x) - x / 2 is even and smooth, so within [-4, 4] and up to [-9, 9] it is a polynomial in x^2 and needs no
comparison. For any x, gelu(x) = relu(x) + d(|x|), where d(a) = gelu(a) - a vanishes beyond 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import erf, log2, sqrt

import numpy as np

from mpcc.compiler.approximations.chain import SQUARE, Floats, Step, evaluate_chain, values
from mpcc.compiler.approximations.sign import clip_above, sign_and_abs
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

EDGE = 4.0
INNER_FRAC_BITS = 20
_erf = np.vectorize(erf, otypes=[np.float64])


def gelu_exact(x: Floats) -> Floats:
    """x Phi(x)."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / sqrt(2.0))))


def gelu_tanh(x: Floats) -> Floats:
    """The tanh form of GELU used by GPT-2 (Hendrycks and Gimpel, eq. 2)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


EXACT: dict[str, Callable[[Floats], Floats]] = {"none": gelu_exact, "tanh": gelu_tanh}


def _of_square(*steps: Step) -> tuple[Step, ...]:
    """The same steps on the square of the variable."""

    def shifted(c: tuple[float, ...]) -> tuple[float, ...]:
        return (c[0], 0.0, *c[1:]) if c else c

    return (SQUARE, *(Step(shifted(s.left), shifted(s.right), shifted(s.plus)) for s in steps))


def _eighth(
    sign: int, p4: float, p2: float, b: float, p3: float, d: float, e: float, c0: float, c1: float, c2: float, c3: float
) -> tuple[Step, ...]:
    """Degree 8 in three products: w1 = v^2, w2 = w1 (p4 w1 + p2 v + p3) + d v + e, w2 (sign w2 + b w1) + ..."""
    return (SQUARE, Step((0, 0, 1), (p3, p2, p4), (e, d)), Step((0, 0, 0, 1), (0, 0, b, sign), (c3, c2, c1, c0)))


# Fitted by benchmarks/fit_approximations.py; multipliers inside products have at most three fractional bits.
# d(4 v) / 4 for v in [0, 1]
TAIL = {
    "none": _eighth(
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
    "tanh": _eighth(
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
    "none": _of_square(
        *_eighth(
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
    "tanh": _of_square(
        *_eighth(
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
    "none": _of_square(
        SQUARE,
        Step((0, 0, 1), (-5.386932817, 7.0, -2.75), (0, 2.8240625048)),
        Step((0, -0.75, -1.0, 1), (0, -4.25, -2.0, 4.75), (-0.6255153902, 0.761352039, 2.0640709045, -1.6171866364)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.7552269706, 0.2783091982, -0.1987113968, 0.24448965, -1.8329084449)
        ),
    ),
    "tanh": _of_square(
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
    "none": _of_square(
        SQUARE,
        Step((0, 0, 1), (-4.9511980747, 5.5, -1.75), (0, 3.128603564)),
        Step((0, -0.5, -1.25, 1), (0, -4.0, -2.0, 3.5), (-0.6360826672, 1.0739451081, 1.7803426146, -1.5845302324)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.7672315809, 0.2675571421, -0.2235458304, 0.2189971833, -1.8423548048)
        ),
    ),
    "tanh": _of_square(
        SQUARE,
        Step((0, 0, 1), (-4.952458236, 5.5, -1.75), (0, 3.1295569358)),
        Step((0, -0.5, -1.25, 1), (0, -4.0, -2.0, 3.5), (-0.6824303789, 1.0639205398, 1.7747339016, -1.576761037)),
        Step(
            (0, 0, 0, 0, 1), (0, 0, 0, 0, -1), (-0.8554392229, 0.2660673857, -0.2235158981, 0.219620435, -1.9360401021)
        ),
    ),
}
EVEN = ((4.0, EVEN_4), (8.0, EVEN_8), (9.0, EVEN_9))


def _unit(domain: float) -> int:
    """log2 of what the variable of an even polynomial is measured in."""
    return round(log2(domain))


@cache
def fit_error(form: str, domain: float | None) -> float:
    """Largest error before rounding: of the even polynomial on [-domain, domain], or (None) of the form for any x."""
    grid = np.linspace(0.0, 1.0, 4001)
    if domain is None:
        tail = EXACT[form](EDGE * grid) - EDGE * grid
        return float(np.abs(EDGE * values(TAIL[form], grid)[-1] - tail).max() + abs(tail[-1]))
    even, unit = EXACT[form](domain * grid) - domain * grid / 2, 2.0 ** _unit(domain)
    return float(np.abs(unit * values(dict(EVEN)[domain][form], domain / unit * grid)[-1] - even).max())


def even_domain(bound: float) -> float | None:
    """The narrowest interval of an even polynomial that holds [-bound, bound]."""
    return next((domain for domain, _ in EVEN if bound <= domain), None)


def gelu_error(
    form: str, frac_bits: int, *, domain: float | None = None, inner_frac_bits: int = INNER_FRAC_BITS
) -> float:
    """Bound of the absolute error: the fit, and rounding between the products and at the end."""
    inner = (domain or EDGE) * 2.0 ** (3 - inner_frac_bits)
    return fit_error(form, domain) + inner + 8 * 2.0**-frac_bits


def gelu(b: Builder, x: RingNode, *, form: str = "none", inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
    """GELU for any x within its bound, at x's scale and one bit more; error `gelu_error` (1.6e-4 and rounding).

    Two comparisons (one where the bound is at most 4), two products without truncation, and three for a polynomial of
    degree 8. The bit more comes from halving and is cheaper kept than truncated. `inner_frac_bits`: between products.
    """
    _, magnitude = sign_and_abs(b, x)
    v = b.reinterpret(clip_above(b, magnitude, EDGE), 2)
    tail = b.reinterpret(evaluate_chain(b, v, TAIL[form], low=0.0, high=1.0, frac_bits=inner_frac_bits), -2)
    relu = b.reinterpret(b.add(x, magnitude), 1)
    return b.add(relu, b.rescale(tail, x.type.frac_bits + 1, bound=0.25), bound=x.type.bound)


def gelu_within(b: Builder, x: RingNode, *, form: str = "none", inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
    """GELU for x whose bound is at most 9, at x's scale, without a comparison; error `gelu_error` with its domain.

    Four products up to 4, five up to 9. Beyond its domain the polynomial is nothing like GELU.
    """
    domain = even_domain(x.type.bound)
    if domain is None:
        raise InternalError(f"no even polynomial for |x| <= {x.type.bound:g}")
    shift = _unit(domain)
    edge = domain / 2.0**shift
    t = b.reinterpret(x, shift)
    even = evaluate_chain(b, t, dict(EVEN)[domain][form], low=-edge, high=edge, frac_bits=inner_frac_bits)
    half = b.rescale(b.reinterpret(t, 1), even.type.frac_bits)
    whole = b.reinterpret(b.add(even, half), -shift)
    return b.rescale(whole, x.type.frac_bits, bound=x.type.bound)


def quad_error(frac_bits: int) -> float:
    """Bound of the absolute error against quad's own formula: one rounding."""
    return 2.0**-frac_bits


def quad(b: Builder, x: RingNode) -> RingNode:
    """x^2/8 + x/4 + 1/2 (MPCFormer) at x's scale; error `quad_error`."""
    f = x.type.frac_bits
    square = b.reinterpret(b.mul(x, x), 3)
    linear = b.mul_int(x, 2 ** (f + 1), f + 3)
    return b.rescale(b.add_const(b.add(square, linear), 0.5), f)
