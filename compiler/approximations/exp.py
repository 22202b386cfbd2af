"""e^x for x <= 0 as q(x / 2^n)^(2^n), where the quartic q is fitted so that its power is off least.

q(t) = 4 w (w + 9/4 s + c) + d s + e with s = t / 4 and w = s^2: two products, since only 9/4 stands inside one.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpcc.compiler.approximations.chain import SQUARE, Step, evaluate_chain
from mpcc.compiler.approximations.sign import clip_below
from mpcc.compiler.ring import Builder, RingNode

_LINEAR = 2.25
_INNER_BITS = 3  # s^2 counts up to eight times in q
MAX_FRAC_BITS = 24
TOLERANCE, LEAN_TOLERANCE = 1.5e-4, 3.5e-4
_SLACK = 1.01  # rounding may lift a power a little above 1


@dataclass(frozen=True)
class ExpForm:
    """n squarings; valid on [lowest, 0] with an absolute error of at most `error` before rounding."""

    squarings: int
    lowest: float
    c: float
    d: float
    e: float
    error: float


# Fitted by benchmarks/fit_approximations.py (weighted least squares of the power, not of the quartic).
FORMS = (
    ExpForm(0, -1.0, 1.974979971, 4.005343097, 1.00023395, 2.4e-4),
    ExpForm(1, -2.0, 1.971883784, 4.002198256, 1.000122248, 2.5e-4),
    ExpForm(2, -4.0, 1.967165876, 3.998267828, 1.000027345, 1.3e-4),
    ExpForm(2, -16.0, 1.977789138, 4.003575539, 1.000083804, 3.4e-4),
    ExpForm(3, -32.0, 1.968425909, 3.997453606, 0.9999936809, 5.1e-5),
    ExpForm(4, -64.0, 1.97924736, 3.999039509, 0.9999987115, 2.1e-5),
    ExpForm(5, -128.0, 1.988324466, 3.999718527, 0.9999998082, 6.2e-6),
    ExpForm(6, -256.0, 1.993837739, 3.999924605, 0.9999999742, 1.7e-6),
    ExpForm(7, -512.0, 1.996838244, 3.999980539, 0.9999999967, 4.4e-7),
)


def form_for(lowest: float, tolerance: float = TOLERANCE) -> ExpForm:
    """The form of fewest products whose domain holds `lowest` within `tolerance`; else that of the largest domain."""
    return next((f for f in FORMS if f.lowest <= lowest and f.error <= tolerance), FORMS[-1])


def exp_error(form: ExpForm, frac_bits: int) -> float:
    """Bound of the absolute error at scale `frac_bits`: the fit, and roundings doubled by each squaring."""
    return float(form.error + 3 * 2.0 ** (form.squarings - frac_bits))


def exp_negative(b: Builder, x: RingNode, *, lowest: float, tolerance: float = TOLERANCE,
                 max_bits: int = MAX_FRAC_BITS) -> RingNode:  # fmt: skip
    """e^x for x in [lowest, 0]; the result is at scale `frac_bits of x` + n (at most `max_bits`).

    Dividing by 2^n moves the binary point only. Arguments below the largest domain are clipped there (e^-512 is 0).
    Error: `exp_error`. Cost: n + 2 products, each with a truncation.
    """
    form = form_for(lowest, tolerance)
    if lowest < form.lowest:
        x = clip_below(b, x, form.lowest)
    n = form.squarings
    f = min(x.type.frac_bits + n, max_bits)
    s = b.reinterpret(x, n + 2)
    steps = (SQUARE, Step((0.0, 0.0, 4.0), (form.c, _LINEAR, 1.0), (form.e, form.d)))
    low = max(lowest, form.lowest) / 2.0 ** (n + 2)
    y = b.rescale(evaluate_chain(b, s, steps, low=low, high=0.0, frac_bits=f + _INNER_BITS), f, bound=_SLACK)
    for _ in range(n):
        y = b.rescale(b.mul(y, y, bound=_SLACK), f, bound=_SLACK)
    return y
