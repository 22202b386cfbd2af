"""e^x for x <= 0: one chain of products where x is small, otherwise q(x / 2^n)^(2^n) with a quartic q.

Down to -8 a polynomial of degree 8 takes three products, one on top of the other. Beyond, the quartic is fitted so that
its power is off least: q(t) = 4 w (w + 9/4 s + c) + d s + e with s = t / 4 and w = s^2, two products, since only 9/4
stands inside one.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpcc.compiler.approximations.chain import SQUARE, Step, evaluate_chain
from mpcc.compiler.approximations.sign import clip_below
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

_LINEAR = 2.25
_INNER_BITS = 3  # what stands between the products counts up to eight times in the result
_MORE_BITS = 2  # of the result, at least: most exponentials of a row are small
MAX_FRAC_BITS = 24
TOLERANCE, LEAN_TOLERANCE = 1.5e-4, 3.5e-4
_SLACK = 1.01  # rounding may lift a power a little above 1


@dataclass(frozen=True)
class ExpForm:
    """2^gain * steps(x / 2^shift + offset), squared `squarings` times.

    Valid on [lowest, 0] with an absolute error of at most `error` before rounding.
    """

    squarings: int
    lowest: float
    error: float
    steps: tuple[Step, ...]
    shift: int
    offset: float = 0.0
    gain: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return "degree 8" if self.offset else "quartic"

    def variable(self, x: float) -> float:
        """What the steps are a polynomial in."""
        return x / 2.0**self.shift + self.offset


def _quartic(n: int, lowest: float, c: float, d: float, e: float, error: float) -> ExpForm:
    steps = (SQUARE, Step((0.0, 0.0, 4.0), (c, _LINEAR, 1.0), (e, d)))
    return ExpForm(n, lowest, error, steps, n + 2)


def _degree_8(
    p4: float,
    p2: float,
    b: float,
    p3: float,
    d: float,
    e: float,
    c0: float,
    c1: float,
    c2: float,
    c3: float,
    error: float,
) -> ExpForm:
    """On [-8, 0], in v = (x + 4) / 8: w1 = v^2, w2 = w1 (p4 w1 + p2 v + p3) + d v + e, 2 (w2 (w2 + b w1) + ...)."""
    steps = (SQUARE, Step((0, 0, 1), (p3, p2, p4), (e, d)), Step((0, 0, 0, 1), (0, 0, b, 1), (c3, c2, c1, c0)))
    return ExpForm(0, -8.0, error, steps, shift=3, offset=0.5, gain=1)


# Fitted by benchmarks/fit_approximations.py (weighted least squares of the power, not of the quartic).
FORMS = (
    _quartic(0, -1.0, 1.974979971, 4.005343097, 1.00023395, 2.4e-4),
    _quartic(1, -2.0, 1.971883784, 4.002198256, 1.000122248, 2.5e-4),
    _degree_8(
        2.0,
        1.625,
        1.0,
        -0.2113980864,
        0.2376532457,
        0.4653270509,
        -0.5028087151,
        -0.1326286294,
        -0.0295819132,
        0.0265542228,
        1.7e-4,
    ),
    _quartic(2, -4.0, 1.967165876, 3.998267828, 1.000027345, 1.3e-4),
    _quartic(2, -16.0, 1.977789138, 4.003575539, 1.000083804, 3.4e-4),
    _quartic(3, -32.0, 1.968425909, 3.997453606, 0.9999936809, 5.1e-5),
    _quartic(4, -64.0, 1.97924736, 3.999039509, 0.9999987115, 2.1e-5),
    _quartic(5, -128.0, 1.988324466, 3.999718527, 0.9999998082, 6.2e-6),
    _quartic(6, -256.0, 1.993837739, 3.999924605, 0.9999999742, 1.7e-6),
    _quartic(7, -512.0, 1.996838244, 3.999980539, 0.9999999967, 4.4e-7),
)


def form_for(lowest: float, tolerance: float = TOLERANCE) -> ExpForm:
    """The form of fewest products whose domain holds `lowest` within `tolerance`; else that of the largest domain."""
    return next((f for f in FORMS if f.lowest <= lowest and f.error <= tolerance), FORMS[-1])


def exp_error(form: ExpForm, frac_bits: int) -> float:
    """Bound of the absolute error at scale `frac_bits`: the fit, and roundings doubled by each squaring."""
    return float(form.error + 3 * 2.0 ** (form.squarings - frac_bits))


def exp_negative(
    b: Builder, x: RingNode, *, lowest: float, tolerance: float = TOLERANCE, max_bits: int = MAX_FRAC_BITS
) -> RingNode:
    """e^x for x in [lowest, 0], at a scale of 2 or n more bits than that of x (at most `max_bits`).

    Moving the binary point by n costs nothing. Arguments below the largest domain are clipped there (e^-512 is 0).
    Error: `exp_error`. Cost: the steps of the form and its n squarings, each a product with a truncation.
    """
    form = form_for(lowest, tolerance)
    if lowest < form.lowest:
        x = clip_below(b, x, form.lowest)
    f = min(x.type.frac_bits + max(form.squarings, _MORE_BITS), max_bits)
    s = b.reinterpret(x, form.shift)
    low, high = form.variable(max(lowest, form.lowest)), form.variable(0.0)
    if form.offset:
        s = b.add_const(s, form.offset, bound=max(-low, high))
    chain = evaluate_chain(b, s, form.steps, low=low, high=high, frac_bits=f + _INNER_BITS)
    y = b.rescale(b.reinterpret(chain, -form.gain), f, bound=_SLACK)
    for _ in range(form.squarings):
        y = b.rescale(b.mul(y, y, bound=_SLACK), f, bound=_SLACK)
    return y
