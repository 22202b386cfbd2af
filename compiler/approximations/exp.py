"""e^x for x <= 0 by the limit (1 + u + u^2/2)^(2^n) with u = x / 2^n."""

from __future__ import annotations

import math

from mpcc.compiler.approximations.sign import clip_below
from mpcc.compiler.ring import Builder, RingNode

# 1 + u + u^2/2 stays in (0, 1) down to u = -2, where it is 1 again; at -1.5 it is 0.625, whose 2^n-th power is nothing.
DOMAIN_PER_FACTOR = 1.5
MIN_SQUARINGS, MAX_SQUARINGS = 5, 8
MAX_FRAC_BITS = 24
_SLACK = 1.01  # rounding may lift a power a little above 1


def squarings_for(lowest: float) -> int:
    """Squarings n whose domain [-1.5 * 2^n, 0] holds `lowest`, at least MIN_SQUARINGS for accuracy."""
    needed = math.ceil(math.log2(max(-lowest, 1.0) / DOMAIN_PER_FACTOR))
    return min(max(needed, MIN_SQUARINGS), MAX_SQUARINGS)


def exp_domain(squarings: int) -> float:
    """The lowest argument for which `exp_limit` is valid."""
    return -DOMAIN_PER_FACTOR * float(2**squarings)


def exp_error(squarings: int, frac_bits: int) -> float:
    """Bound of the absolute error for x in the domain.

    The series is cut after u^2/2: relative error |x|^3 / (6 * 4^n), times e^x at most 1.35 / (6 * 4^n); where u is no
    longer small the result itself is below 0.625^(2^n). Rounding: half an ulp doubled by each of n squarings.
    """
    series = 1.35 / 6.0 / 4.0**squarings * 1.1 + 0.625 ** (2.0**squarings)
    return float(series + 2.0 ** (squarings + 1 - frac_bits))


def exp_limit(b: Builder, x: RingNode, *, lowest: float, max_bits: int = MAX_FRAC_BITS) -> RingNode:
    """e^x for x in [lowest, 0]; the result is at scale `frac_bits of x` + n (at most `max_bits`).

    Dividing by 2^n moves the binary point only. Arguments below the largest domain are clipped there (e^-384 is 0).
    Error: `exp_error`. Cost: n + 1 products, each with a truncation.
    """
    n = squarings_for(lowest)
    if lowest < exp_domain(n):
        x = clip_below(b, x, exp_domain(n))
    f = min(x.type.frac_bits + n, max_bits)
    u = b.rescale(b.reinterpret(x, n), f, bound=DOMAIN_PER_FACTOR)
    y = b.add_const(u, 1.0, bound=_SLACK)
    square = b.mul(y, y, bound=_SLACK)
    y = b.rescale(b.reinterpret(b.add_const(square, 1.0), 1), f, bound=_SLACK)
    for _ in range(n):
        y = b.rescale(b.mul(y, y, bound=_SLACK), f, bound=_SLACK)
    return y
