"""1/x and 1/sqrt(x) on a positive interval: piecewise linear start, then Newton steps.

The start is the relative-minimax line on each of J geometric segments; which segment holds x is found by J - 1
comparisons in one round, and the coefficients are public, so selecting them takes one product. More segments mean fewer
steps: J is chosen for the fewest rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mpcc.compiler.ring import Builder, RingNode

_COMPARISON_ROUNDS = 10  # comparison, selection; only ratios matter here
_STEP_ROUNDS = 6
MAX_SEGMENTS = 24


@dataclass(frozen=True)
class Start:
    """Lines offset - slope * x on consecutive segments and the largest relative error of the start."""

    edges: tuple[float, ...]
    offsets: tuple[float, ...]
    slopes: tuple[float, ...]
    error: float
    steps: int


def _line(power: float, low: float, high: float) -> tuple[float, float, float]:
    """Relative minimax line a - b x for x^power on [low, high]: (a, b, error)."""
    x = np.geomspace(low, high, 801)
    basis = np.stack([x**-power, -(x ** (1.0 - power))], axis=1)
    weight = np.full(x.shape, 1.0 / x.size)
    for _ in range(60):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(basis * root[:, None], root, rcond=None)[0]
        error = np.abs(basis @ solution - 1.0)
        weight = weight * (error + 1e-9)
        weight /= weight.sum()
    return float(solution[0]), float(solution[1]), float(error.max())


@lru_cache(maxsize=64)
def plan(power: float, low: float, high: float, target: float) -> Start:
    """The start with the fewest rounds that reaches the relative error `target` on [low, high] (power -1 or -1/2)."""
    contraction: Callable[[float], float] = (lambda e: e * e) if power == -1.0 else (lambda e: 1.5 * e * e + 0.5 * e**3)
    best: tuple[int, Start] | None = None
    for segments in range(1, MAX_SEGMENTS + 1):
        ratio = (high / low) ** (1.0 / segments)
        offset, slope, error = _line(power, 1.0, ratio)
        steps, e = 0, error
        while e > target and steps < 12 and contraction(e) < e:
            e, steps = contraction(e), steps + 1
        if e > target:
            continue
        rounds = steps * _STEP_ROUNDS + (_COMPARISON_ROUNDS if segments > 1 else 0)
        if best is None or rounds < best[0]:
            lows = [low * ratio**j for j in range(segments)]
            start = Start(
                tuple(lows[1:]),
                tuple(offset * v**power for v in lows),
                tuple(slope * v ** (power - 1.0) for v in lows),
                error,
                steps,
            )
            best = (rounds, start)
    if best is None:
        raise ValueError(f"no start for x^{power} on [{low}, {high}]")
    return best[1]


def _start_value(b: Builder, x: RingNode, start: Start, frac_bits: int, bound: float) -> RingNode:
    """The piecewise linear start at scale `frac_bits`."""
    slope_bits = max(0, 12 - math.floor(math.log2(min(start.slopes))))
    slope_bits = min(slope_bits, 61 - x.type.frac_bits - math.ceil(math.log2(max(start.slopes) * x.type.bound)))

    def line(offset: float, slope: float) -> RingNode:
        slope_int = round(slope * 2.0**slope_bits)
        return b.add_const(b.neg(b.mul_int(x, slope_int, slope_bits)), offset)

    last = len(start.offsets) - 1
    total = b.rescale(line(start.offsets[last], start.slopes[last]), frac_bits, bound=bound)
    if last == 0:
        return total
    shape = x.type.shape
    stack = (1, *shape)
    below = b.lt_zero(b.concat([b.reshape(b.add_const(x, -edge), stack) for edge in start.edges], 0))
    # [x < edge_j] switches from line j + 1 to line j; the differences telescope.
    changes = [
        line(start.offsets[j] - start.offsets[j + 1], start.slopes[j] - start.slopes[j + 1]) for j in range(last)
    ]
    rescaled = b.rescale(b.concat([b.reshape(c, stack) for c in changes], 0), frac_bits)
    chosen = b.sum(b.mul(below, rescaled), 0, bound=bound * 4)
    return b.add(total, b.reshape(chosen, shape), bound=bound)


def reciprocal(b: Builder, x: RingNode, *, low: float, high: float, frac_bits: int, error: float = 2.0**-17) -> RingNode:
    """1/x for x in [low, high] at scale `frac_bits`; relative error at most `error` plus a few ulps.

    Newton: e = 1 - x y; y <- y + y e; the error squares in each step.
    """
    shift = math.ceil(math.log2(high))  # x / 2^shift <= 1
    x = _shifted(b, x, shift, min(frac_bits, 30), high)
    low, high = low / 2.0**shift, high / 2.0**shift
    top = 1.0 / low * 1.3
    start = plan(-1.0, low, high, error)
    y = _start_value(b, x, start, frac_bits, top)
    f = x.type.frac_bits
    for _ in range(start.steps):
        e = b.const_sub(1.0, b.rescale(b.mul(x, y, bound=2.0), f), bound=1.0)
        y = b.add(y, b.rescale(b.mul(y, e, bound=top), frac_bits, bound=top), bound=top)
    return _shifted_back(b, y, shift)


def rsqrt(b: Builder, x: RingNode, *, low: float, high: float, frac_bits: int, error: float = 2.0**-17) -> RingNode:
    """1/sqrt(x) for x in [low, high] at scale about `frac_bits`; relative error at most `error` plus a few ulps.

    Newton with g = x y^2 carried along: y <- y (3 - g) / 2, g <- g ((3 - g) / 2)^2, two products deep per step.
    """
    shift = 2 * math.ceil(math.log2(high) / 2)  # even, so that the root's shift is whole
    spread = math.log2(high / low)
    x = _shifted(b, x, shift, min(34, math.ceil(spread) + 18), high)
    low, high = low / 2.0**shift, high / 2.0**shift
    top = low**-0.5 * 1.5
    start = plan(-0.5, low, high, error)
    y = _start_value(b, x, start, frac_bits, top)
    xy = b.rescale(b.mul(x, y, bound=2.0), frac_bits, bound=2.0)
    g = b.rescale(b.mul(xy, y, bound=2.0), frac_bits, bound=2.0)
    for step in range(start.steps):
        half = b.reinterpret(b.const_sub(3.0, g, bound=3.0), 1)  # (3 - g) / 2, one fractional bit more
        y = b.rescale(b.mul(y, half, bound=top), frac_bits, bound=top)
        if step < start.steps - 1:
            square = b.rescale(b.mul(half, half), frac_bits, bound=2.25)
            g = b.rescale(b.mul(g, square, bound=2.0), frac_bits, bound=2.0)
    return _shifted_back(b, y, shift // 2)


def _shifted(b: Builder, x: RingNode, shift: int, frac_bits: int, high: float) -> RingNode:
    """x / 2^shift in (0, 1] at scale `frac_bits`: only the truncation costs."""
    x = b.reinterpret(x, shift) if shift >= 0 else b.mul_int(x, 2**-shift)
    return b.rescale(x, frac_bits, bound=1.0)


def _shifted_back(b: Builder, y: RingNode, shift: int) -> RingNode:
    return b.reinterpret(y, shift) if shift >= 0 else b.mul_int(y, 2**-shift)
