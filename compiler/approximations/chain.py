"""Polynomials as chains of products: few secure products reach a high degree.

A step multiplies two combinations of what is known so far (1, v, first result, second result, ...) and adds a third.
The multipliers inside a product need few fractional bits, because each of them widens what has to be truncated;
constants, and all coefficients of what is added, cost nothing and are exact to the scale. Degree 2^n takes n products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

Floats = NDArray[np.float64]
_GRID = 1001
_SLACK = 1.02  # of bounds: rounding may lift a value a little above what the grid shows
_MULTIPLIER_BITS = 12


@dataclass(frozen=True)
class Step:
    """left * right + plus, each a combination of (1, v, result of step 1, result of step 2, ...)."""

    left: tuple[float, ...]
    right: tuple[float, ...]
    plus: tuple[float, ...] = ()


SQUARE = Step((0.0, 1.0), (0.0, 1.0))


def of_square(*steps: Step) -> tuple[Step, ...]:
    """The same steps on the square of the variable."""

    def shifted(c: tuple[float, ...]) -> tuple[float, ...]:
        return (c[0], 0.0, *c[1:]) if c else c

    return (SQUARE, *(Step(shifted(s.left), shifted(s.right), shifted(s.plus)) for s in steps))


def values(steps: Sequence[Step], v: Floats) -> list[Floats]:
    """The results of all steps in float64, each in the shape of v."""
    known = [np.ones_like(v), v]
    for step in steps:
        known.append(_combination(known, step.left) * _combination(known, step.right) + _combination(known, step.plus))
    return known[2:]


def _combination(known: Sequence[Floats], coefficients: Sequence[float]) -> Floats:
    total = np.zeros_like(known[0])
    for value, c in zip(known, coefficients, strict=False):
        total = total + c * value
    return total


def evaluate_chain(
    b: Builder, v: RingNode, steps: Sequence[Step], *, low: float, high: float, frac_bits: int
) -> RingNode:
    """The last step's result for v in [low, high], not yet truncated; results between steps are at `frac_bits`.

    One product per step, and one truncation for every step but the last.
    """
    grid = np.linspace(low, high, _GRID)
    exact = [np.ones_like(grid), grid, *values(steps, grid)]
    known: list[RingNode] = [v]
    for n, step in enumerate(steps):
        left = _linear(b, known, step.left, _scale(known, step.left), _bound(exact, step.left))
        same = step.right == step.left
        right = left if same else _linear(b, known, step.right, _scale(known, step.right), _bound(exact, step.right))
        bound = float(np.abs(exact[n + 2]).max()) * _SLACK + 2.0**-8
        result = b.mul(left, right, bound=left.type.bound * right.type.bound)
        if step.plus:
            added = _linear(b, known, step.plus, result.type.frac_bits, _bound(exact, step.plus))
            result = b.add(result, added, bound=bound)
        if n < len(steps) - 1:
            result = b.rescale(result, frac_bits, bound=bound)
        known.append(result)
    return known[-1]


def _bound(exact: Sequence[Floats], coefficients: Sequence[float]) -> float:
    return float(np.abs(_combination(exact, coefficients)).max()) * _SLACK + 2.0**-8


def _fraction_bits(c: float) -> int:
    """Fractional bits that a multiplier needs."""
    return next(q for q in range(_MULTIPLIER_BITS + 1) if (c * 2.0**q).is_integer())


def _scale(known: Sequence[RingNode], coefficients: Sequence[float]) -> int:
    """The least scale at which the combination is exact."""
    terms = zip(known, coefficients[1:], strict=False)
    return max(value.type.frac_bits + _fraction_bits(c) for value, c in terms if c)


def _linear(b: Builder, known: Sequence[RingNode], coefficients: Sequence[float], scale: int, bound: float) -> RingNode:
    """The combination at `scale`, by public multiplications only."""
    constant = coefficients[0] if coefficients else 0.0
    terms: list[RingNode] = []
    for value, c in zip(known, coefficients[1:], strict=False):
        if c:
            shift = scale - value.type.frac_bits
            terms.append(value if shift == 0 and c == 1.0 else b.mul_int(value, round(c * 2.0**shift), shift))
    if constant or not terms:
        terms.append(b.const(constant, known[0].type.shape, scale))
    total = terms[0]
    for term in terms[1:]:
        total = b.add(total, term, bound=bound if term is terms[-1] else None)
    return total
