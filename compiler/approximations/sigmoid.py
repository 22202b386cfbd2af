"""sigmoid and tanh through e^-|x|: the exponential of a negative number is in range whatever x is."""

from __future__ import annotations

from mpcc.compiler.approximations.exp import exp_error, exp_negative, form_for
from mpcc.compiler.approximations.newton import reciprocal
from mpcc.compiler.approximations.sign import clip_above, sign_and_abs
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

_EDGE = 16.0  # sigmoid(16) differs from 1 by 1.2e-7
_FORM = form_for(-_EDGE)


def sigmoid_error(frac_bits: int) -> float:
    """Bound of the absolute error of sigmoid anywhere."""
    return exp_error(_FORM, frac_bits + _FORM.squarings) + 2.0**-16 + 4 * 2.0**-frac_bits


def tanh_error(frac_bits: int) -> float:
    """Bound of the absolute error of tanh anywhere."""
    return 2 * sigmoid_error(frac_bits)


def _half_and_sign(b: Builder, x: RingNode) -> tuple[RingNode, RingNode]:
    """(sigmoid(|x|) - 1/2 in [0, 1/2], [x < 0])."""
    f = x.type.frac_bits
    negative, magnitude = sign_and_abs(b, x)
    clipped = clip_above(b, magnitude, _EDGE)
    e = exp_negative(b, b.neg(clipped), lowest=-_EDGE)
    r = reciprocal(b, b.add_const(e, 1.0), low=0.99, high=2.01, frac_bits=22)
    return b.add_const(b.rescale(r, f), -0.5, bound=0.51), negative


def _with_sign(b: Builder, half: RingNode, negative: RingNode) -> RingNode:
    """half, negated where `negative` is 1; one product without truncation."""
    return b.sub(half, b.mul_int(b.mul(negative, half, bound=half.type.bound), 2), bound=half.type.bound)


def sigmoid(b: Builder, x: RingNode) -> RingNode:
    """1 / (1 + e^-x) at x's scale; error `sigmoid_error`."""
    return b.add_const(_with_sign(b, *_half_and_sign(b, x)), 0.5, bound=1.01)


def tanh(b: Builder, x: RingNode) -> RingNode:
    """2 sigmoid(2x) - 1 at x's scale; error `tanh_error`."""
    half = _with_sign(b, *_half_and_sign(b, b.mul_int(x, 2)))
    return b.mul_int(half, 2, bound=1.01)


def relu(b: Builder, x: RingNode) -> RingNode:
    """max(x, 0), exact."""
    negative = b.lt_zero(x)
    return b.sub(x, b.mul(negative, x, bound=x.type.bound), bound=x.type.bound)
