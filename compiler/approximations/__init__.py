"""Non-linear functions built from ring primitives, and the registry of them.

`APPROXIMATIONS` says by graph operation how it is computed, where that holds and how far off it may be. Documentation
and tests read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpcc.compiler.approximations.gelu import GELU, quad_error
from mpcc.compiler.approximations.newton import reciprocal_error, rsqrt_error
from mpcc.compiler.approximations.sigmoid import sigmoid_error, tanh_error
from mpcc.compiler.approximations.silu import SILU
from mpcc.compiler.approximations.softmax import softmax_2quad_error, softmax_2relu_error, softmax_error


@dataclass(frozen=True)
class Domain:
    """Where a form is valid: in words, and the interval that the tests cover."""

    text: str
    low: float
    high: float


@dataclass(frozen=True)
class Approximation:
    """The form of a non-linear operation.

    `error_bound(frac_bits)` bounds the error at the working scale `frac_bits`; `error_of` says what it is measured in:
    "1" (absolute) or "y" (relative to max(1, |result|)).
    """

    op: str
    name: str
    domain: Domain
    error_bound: Callable[[int], float]
    source: str
    error_of: str = "1"


_ANYWHERE = Domain("any value within its calibrated bound", -64.0, 64.0)
_ROWS = Domain("rows whose scores span at most 512; entries below the maximum by more count as 0", -512.0, 0.0)
_SCORES = Domain("any score within its calibrated bound", -64.0, 64.0)
_POSITIVE = Domain("positive, from 1/4 of the least to 4 times the largest calibrated value", 2.0**-6, 2.0**12)
_VARIANCE = Domain("variance from 1/4 of the least to 4 times the largest calibrated one", 2.0**-6, 2.0**10)
_MPCFORMER = "MPCFormer (Li et al., ICLR 2023)"
_SIGMOID = "e^-|x| as a quartic of x / 2^n to the power 2^n, then Newton's reciprocal"


def _gelu_error(frac_bits: int) -> float:
    """Of both forms, erf and tanh."""
    return max(gelu.error(None, frac_bits) for gelu in GELU.values())


_ALL = (
    Approximation(
        "gelu",
        "polynomial",
        _ANYWHERE,
        _gelu_error,
        "x / 2 and a polynomial in x^2 within [-4, 4] to [-9, 9]; else relu(x) and one of degree 8 in |x|",
    ),
    Approximation("gelu_quad", "quad", _ANYWHERE, quad_error, f"x^2/8 + x/4 + 1/2; {_MPCFORMER}"),
    Approximation(
        "softmax",
        "exp",
        _ROWS,
        softmax_error,
        "row maximum, e^x as a quartic of x / 2^n to the power 2^n, Newton's reciprocal",
    ),
    Approximation(
        "softmax_2quad",
        "2quad",
        _SCORES,
        softmax_2quad_error,
        f"(x + 5)^2 / (2^-6 + sum); {_MPCFORMER}",
    ),
    Approximation(
        "softmax_2relu",
        "2relu",
        _SCORES,
        softmax_2relu_error,
        "relu(x) / (2^-6 + sum); SecureML (Mohassel and Zhang 2017)",
    ),
    Approximation(
        "reciprocal",
        "newton",
        _POSITIVE,
        reciprocal_error,
        "piecewise minimax line, Newton's y + y (1 - x y)",
        error_of="y",
    ),
    Approximation(
        "rsqrt",
        "newton",
        _POSITIVE,
        rsqrt_error,
        "piecewise minimax line, Newton's y (3 - x y^2) / 2",
        error_of="y",
    ),
    Approximation(
        "layer_norm",
        "rsqrt",
        _VARIANCE,
        rsqrt_error,
        "one inner product and Newton's reciprocal root per token",
        error_of="y",
    ),
    Approximation(
        "rms_norm",
        "rsqrt",
        _VARIANCE,
        rsqrt_error,
        "one inner product and Newton's reciprocal root per token",
        error_of="y",
    ),
    Approximation("tanh", "exp", _ANYWHERE, tanh_error, _SIGMOID),
    Approximation("sigmoid", "exp", _ANYWHERE, sigmoid_error, _SIGMOID),
    Approximation(
        "silu",
        "polynomial",
        _ANYWHERE,
        lambda frac_bits: SILU.error(None, frac_bits),
        "x / 2 and a polynomial in x^2 within [-5, 5] to [-10, 10]; else relu(x) and one of degree 16 in |x|",
    ),
    Approximation("relu", "comparison", _ANYWHERE, lambda frac_bits: 0.0, "x [x >= 0], exact"),
)

APPROXIMATIONS: dict[str, Approximation] = {a.op: a for a in _ALL}

__all__ = ["APPROXIMATIONS", "Approximation", "Domain"]
