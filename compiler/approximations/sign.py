"""Comparisons with public bounds: absolute value and clipping, exact up to the scale."""

from __future__ import annotations

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode


def sign_and_abs(b: Builder, x: RingNode) -> tuple[RingNode, RingNode]:
    """([x < 0] as 0/1 at scale 0, |x| at x's scale). One comparison, one product, no truncation."""
    negative = b.lt_zero(x)
    flipped = b.mul(negative, x, bound=x.type.bound)
    return negative, b.sub(x, b.mul_int(flipped, 2), bound=x.type.bound)


def clip_above(b: Builder, x: RingNode, high: float) -> RingNode:
    """min(x, high); free where the bound of x already says so."""
    if x.type.bound <= high:
        return x
    excess = b.add_const(x, -high)
    below = b.lt_zero(excess)
    return b.add_const(b.mul(below, excess, bound=x.type.bound + high), high, bound=max(high, x.type.bound))


def clip_below(b: Builder, x: RingNode, low: float) -> RingNode:
    """max(x, low)."""
    if x.type.bound <= -low:
        return x
    missing = b.add_const(x, -low)
    below = b.lt_zero(missing)
    return b.sub(x, b.mul(below, missing, bound=x.type.bound - low), bound=x.type.bound)
