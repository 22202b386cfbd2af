"""1/x and 1/sqrt(x) on a positive interval: piecewise linear start, then Newton steps.

The start is the relative-minimax line on each of J geometric segments; which segment holds x is found by J - 1
comparisons in one round, and the coefficients are public, so selecting them takes one product. More segments mean fewer
steps: J is chosen for the fewest rounds, and for fewer comparisons where a step less would take many of them; how much
comparisons weigh against rounds depends on the network (START_WEIGHTS).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

_COMPARISON_ROUNDS = 10  # comparison, selection; only ratios matter here
_STEP_ROUNDS = 6
_SEGMENTS = (*range(1, 25), 28, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128)
# what the bytes of one more comparison weigh, in rounds: the more, the fewer segments and the more Newton steps
START_WEIGHTS = {"balanced": 0.5, "fewer steps": 0.15, "fewest steps": 0.02}
LEAN_BITS, LEAN_ERROR = 14, 2.0**-12  # scale and relative error where local truncations are wanted
TARGET = 2.0**-17  # relative error at which Newton steps end
_NO_STEP = 0.5  # of the target: the error of a line is there in most of its segment, that of a step at its ends only
_INTEGER_BITS = 60  # of the lines before they are truncated


@dataclass(frozen=True)
class Start:
    """Lines offset - slope * x on consecutive segments and the largest relative error of the start."""

    edges: tuple[float, ...]
    offsets: tuple[float, ...]
    slopes: tuple[float, ...]
    error: float
    steps: int


def _line(power: float, ratio: float) -> tuple[float, float, float]:
    """Relative minimax line a - b x for x^power on [1, ratio]: (a, b, error); power < 0.

    The relative error is equal and largest at both ends, and as large with the other sign where it turns.
    """
    k = (1.0 - ratio ** (1.0 - power)) / (1.0 - ratio**-power)  # a / b
    turn = -power * k / (1.0 - power)
    b = 2.0 / (k - 1.0 + k * turn**-power - turn ** (1.0 - power))
    return k * b, b, abs(k * b - b - 1.0)


@lru_cache(maxsize=64)
def plan(power: float, low: float, high: float, target: float, weighing: str = "balanced") -> Start:
    """The cheapest start that reaches the relative error `target` on [low, high] (power -1 or -1/2).

    `weighing` is a key of START_WEIGHTS.
    """
    weight = START_WEIGHTS[weighing]
    contraction: Callable[[float], float] = (lambda e: e * e) if power == -1.0 else (lambda e: 1.5 * e * e + 0.5 * e**3)
    best: tuple[float, Start] | None = None
    for segments in _SEGMENTS:
        comparisons = _COMPARISON_ROUNDS + segments * weight if segments > 1 else 0.0
        if best is not None and comparisons >= best[0]:
            break
        ratio = (high / low) ** (1.0 / segments)
        offset, slope, error = _line(power, ratio)
        steps, e = 0, error
        while e > (target if steps else _NO_STEP * target) and steps < 12 and contraction(e) < e:
            e, steps = contraction(e), steps + 1
        if e > (target if steps else _NO_STEP * target):
            continue
        cost = steps * _STEP_ROUNDS + comparisons
        if best is None or cost < best[0]:
            lows = [low * ratio**j for j in range(segments)]
            start = Start(
                tuple(lows[1:]),
                tuple(offset * v**power for v in lows),
                tuple(slope * v ** (power - 1.0) for v in lows),
                error,
                steps,
            )
            best = (cost, start)
    if best is None:
        raise ValueError(f"no start for x^{power} on [{low}, {high}]")
    return best[1]


def _start_value(b: Builder, x: RingNode, start: Start, frac_bits: int, bound: float) -> RingNode:
    """The piecewise linear start for x in (0, 1], truncated to `frac_bits` once the line is chosen.

    [x < edge_j] switches from line j + 1 to line j. Slopes are whole numbers of one unit and their differences exact,
    so what many comparisons select is as exact as a single line.
    """
    steepest = math.log2(max(start.slopes) * x.type.bound)
    bits = max(0, min(frac_bits, _INTEGER_BITS - x.type.frac_bits - math.ceil(steepest)))
    slopes, last = [round(s * 2.0**bits) for s in start.slopes], len(start.slopes) - 1

    def line(offset: float, slope: int) -> RingNode:
        return b.add_const(b.mul_int(x, -slope, bits), offset)

    total = line(start.offsets[last], slopes[last])
    if last:
        side, dim = (*x.type.shape, 1), len(x.type.shape)
        below = b.lt_zero(b.concat([b.reshape(b.add_const(x, -edge), side) for edge in start.edges], dim))
        changes = [line(start.offsets[j] - start.offsets[j + 1], slopes[j] - slopes[j + 1]) for j in range(last)]
        chosen = b.dot(below, b.concat([b.reshape(c, side) for c in changes], dim), bound=bound * 4)
        total = b.add(total, b.reshape(chosen, x.type.shape), bound=bound)
    return b.rescale(total, frac_bits, bound=bound)


def reciprocal_error(frac_bits: int, target: float = TARGET) -> float:
    """Bound of the relative error of `reciprocal` at scale `frac_bits`."""
    return target + 2.0**-19 + 2.0 ** (1 - frac_bits)


def rsqrt_error(frac_bits: int, target: float = TARGET) -> float:
    """Bound of the relative error of `rsqrt` at scale `frac_bits`."""
    return target + 2.0**-18 + 2.0 ** (1 - frac_bits)


def reciprocal(
    b: Builder,
    x: RingNode,
    *,
    low: float,
    high: float,
    frac_bits: int,
    error: float = TARGET,
    lean: bool = False,
    weighing: str = "balanced",
) -> RingNode:
    """1/x for x in [low, high] at scale `frac_bits`; relative error `reciprocal_error`.

    `lean` works at `frac_bits` throughout, so that truncations can be local; otherwise x gets more.

    Newton: e = 1 - x y; y <- y + y e; the error squares in each step. An interval of more than 2^11 is first brought
    to 2^5 by powers of two.
    """
    if high / low > 2.0**11:
        x, factor = _normalised(b, x, low, high, 5)
        y = reciprocal(
            b, x, low=high / 2.0**5, high=high, frac_bits=frac_bits, error=error, lean=lean, weighing=weighing
        )
        return b.mul(y, factor, bound=y.type.bound * factor.type.bound)
    shift = math.ceil(math.log2(high))  # x / 2^shift <= 1
    spread = math.ceil(math.log2(high / low))
    x = _shifted(b, x, shift, spread + frac_bits if lean else max(22, spread + 20), high)
    low, high = low / 2.0**shift, high / 2.0**shift
    top = 1.0 / low * 1.3
    start = plan(-1.0, low, high, error, weighing)
    y = _start_value(b, x, start, frac_bits, top)
    f = min(frac_bits if lean else x.type.frac_bits, 60 - frac_bits - math.ceil(math.log2(top)))
    for _ in range(start.steps):
        e = b.const_sub(1.0, b.rescale(b.mul(x, y, bound=2.0), f), bound=1.0)
        y = b.rescale(b.mul(y, b.add_const(e, 1.0, bound=2.0), bound=top), frac_bits, bound=top)
    return _shifted_back(b, y, shift)


def rsqrt(
    b: Builder,
    x: RingNode,
    *,
    low: float,
    high: float,
    frac_bits: int,
    error: float = TARGET,
    lean: bool = False,
    weighing: str = "balanced",
) -> RingNode:
    """1/sqrt(x) for x in [low, high] at scale about `frac_bits`; relative error `rsqrt_error`.

    `lean` works at `frac_bits` throughout, so that truncations can be local; otherwise x gets more.

    Newton with g = x y^2 carried along: y <- y (3 - g) / 2, g <- g ((3 - g) / 2)^2, two products deep per step. An
    interval of more than 2^16 is first brought to 2^8 by powers of four.
    """
    if high / low > 2.0**16:
        x, factor = _normalised(b, x, low, high, 8, root=True)
        y = rsqrt(b, x, low=high / 2.0**8, high=high, frac_bits=frac_bits, error=error, lean=lean, weighing=weighing)
        return b.mul(y, factor, bound=y.type.bound * factor.type.bound)
    shift = 2 * math.ceil(math.log2(high) / 2)  # even, so that the root's shift is whole
    spread = math.log2(high / low)
    x = _shifted(b, x, shift, min(34, math.ceil(spread) + (frac_bits if lean else 18)), high)
    low, high = low / 2.0**shift, high / 2.0**shift
    top = low**-0.5 * 1.5
    start = plan(-0.5, low, high, error, weighing)
    y = _start_value(b, x, start, frac_bits, top)
    # x y is as small as sqrt(low): it keeps as many more bits
    xy = b.rescale(b.mul(x, y, bound=2.0), min(frac_bits + math.ceil(spread / 2), 34), bound=2.0)
    g = b.rescale(b.mul(xy, y, bound=2.0), frac_bits, bound=2.0)
    for step in range(start.steps):
        half = b.reinterpret(b.const_sub(3.0, g, bound=3.0), 1)  # (3 - g) / 2, one fractional bit more
        last = step == start.steps - 1
        y = b.rescale(b.mul(y, half, bound=top), frac_bits, bound=top)
        if not last:
            square = b.rescale(b.mul(half, half), frac_bits, bound=2.25)
            g = b.rescale(b.mul(g, square, bound=2.0), frac_bits, bound=2.0)
    return _shifted_back(b, y, shift // 2)


def _normalised(
    b: Builder, x: RingNode, low: float, high: float, bits: int, *, root: bool = False
) -> tuple[RingNode, RingNode]:
    """(x times the power of two that brings it into [high / 2^bits, high], that power or its root).

    One comparison per segment, all in one round, and one product without truncation: the factor is a whole number.
    """
    segments = math.ceil(math.log2(high / low) / bits)
    edges = [high / 2.0 ** (bits * j) for j in range(1, segments)]
    below = b.lt_zero(b.concat([b.reshape(b.add_const(x, -edge), (1, *x.type.shape)) for edge in edges], 0))

    def power(step: int) -> RingNode:
        """2^(step * j) in segment j: a public combination of the comparisons."""
        parts = [
            b.mul_int(b.slice(below, 0, j, j + 1), 2 ** (step * (j + 1)) - 2 ** (step * j)) for j in range(segments - 1)
        ]
        total = b.reshape(b.sum(b.concat(parts, 0), 0), x.type.shape)
        return b.add_const(total, 1.0, bound=2.0 ** (step * (segments - 1)))

    return b.mul(x, power(bits), bound=high), power(bits // 2 if root else bits)


def _shifted(b: Builder, x: RingNode, shift: int, frac_bits: int, high: float) -> RingNode:
    """x / 2^shift in (0, 1] at scale `frac_bits`: only the truncation costs."""
    x = b.reinterpret(x, shift) if shift >= 0 else b.mul_int(x, 2**-shift)
    return b.rescale(x, frac_bits, bound=1.0)


def _shifted_back(b: Builder, y: RingNode, shift: int) -> RingNode:
    return b.reinterpret(y, shift) if shift >= 0 else b.mul_int(y, 2**-shift)
