"""Non-linear functions built from ring primitives, and the registry of them.

`APPROXIMATIONS` lists, by graph operation, every form that a user may choose, the default first. Documentation, the
manifest and the tests read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpcc.compiler.approximations.gelu import gelu_error, quad_error
from mpcc.compiler.approximations.newton import reciprocal_error, rsqrt_error
from mpcc.compiler.approximations.sigmoid import sigmoid_error, silu_error, tanh_error
from mpcc.compiler.approximations.softmax import quad_softmax_error, relu_softmax_error, softmax_error


@dataclass(frozen=True)
class Domain:
    """Where a form is valid: in words, and the interval that the tests cover."""

    text: str
    low: float
    high: float


@dataclass(frozen=True)
class Approximation:
    """One form of a non-linear operation.

    `error_bound(frac_bits)` bounds the error at the working scale `frac_bits`; `error_of` says what it is measured in:
    "1" (absolute), "y" (relative to max(1, |result|)) or "x" (relative to max(1, |argument|)). The error of a form that
    is not faithful is that against its own formula.
    """

    op: str
    name: str
    faithful: bool
    domain: Domain
    error_bound: Callable[[int], float]
    source: str
    error_of: str = "1"

    @property
    def changes_model(self) -> bool:
        """Whether this is another function, for models that were trained with it."""
        return not self.faithful


_ANYWHERE = Domain("any value within its calibrated bound", -64.0, 64.0)
_ROWS = Domain("rows whose scores span at most 512; entries below the maximum by more count as 0", -512.0, 0.0)
_SCORES = Domain("any score within its calibrated bound", -64.0, 64.0)
_POSITIVE = Domain("positive, from 1/4 of the least to 4 times the largest calibrated value", 2.0**-6, 2.0**12)
_VARIANCE = Domain("variance from 1/4 of the least to 4 times the largest calibrated one", 2.0**-6, 2.0**10)
_MPCFORMER = "MPCFormer (Li et al., ICLR 2023)"
_SIGMOID = "e^-|x| as a quartic of x / 2^n to the power 2^n, then Newton's reciprocal"


def _gelu_error(frac_bits: int) -> float:
    """Of both forms, erf and tanh."""
    return max(gelu_error("none", frac_bits), gelu_error("tanh", frac_bits))


_ALL = (
    Approximation(
        "gelu",
        "polynomial",
        True,
        _ANYWHERE,
        _gelu_error,
        "x / 2 and a polynomial in x^2 within [-4, 4] to [-9, 9]; else relu(x) and one of degree 8 in |x|",
    ),
    Approximation("gelu", "quad", False, _ANYWHERE, quad_error, f"x^2/8 + x/4 + 1/2; {_MPCFORMER}"),
    Approximation(
        "softmax",
        "exp",
        True,
        _ROWS,
        softmax_error,
        "row maximum, e^x as a quartic of x / 2^n to the power 2^n, Newton's reciprocal",
    ),
    Approximation("softmax", "2quad", False, _SCORES, quad_softmax_error, f"(x + 5)^2 / (2^-6 + sum); {_MPCFORMER}"),
    Approximation(
        "softmax",
        "2relu",
        False,
        _SCORES,
        relu_softmax_error,
        "relu(x) / (2^-6 + sum); SecureML (Mohassel and Zhang 2017)",
    ),
    Approximation(
        "reciprocal",
        "newton",
        True,
        _POSITIVE,
        reciprocal_error,
        "piecewise minimax line, Newton's y + y (1 - x y)",
        error_of="y",
    ),
    Approximation(
        "rsqrt",
        "newton",
        True,
        _POSITIVE,
        rsqrt_error,
        "piecewise minimax line, Newton's y (3 - x y^2) / 2",
        error_of="y",
    ),
    Approximation(
        "layer_norm",
        "rsqrt",
        True,
        _VARIANCE,
        rsqrt_error,
        "one inner product and Newton's reciprocal root per token",
        error_of="y",
    ),
    Approximation(
        "rms_norm",
        "rsqrt",
        True,
        _VARIANCE,
        rsqrt_error,
        "one inner product and Newton's reciprocal root per token",
        error_of="y",
    ),
    Approximation("tanh", "exp", True, _ANYWHERE, tanh_error, _SIGMOID),
    Approximation("sigmoid", "exp", True, _ANYWHERE, sigmoid_error, _SIGMOID),
    Approximation("silu", "exp", True, _ANYWHERE, silu_error, f"x sigmoid(x): {_SIGMOID}", error_of="x"),
    Approximation("relu", "comparison", True, _ANYWHERE, lambda frac_bits: 0.0, "x [x >= 0], exact"),
)

APPROXIMATIONS: dict[str, tuple[Approximation, ...]] = {
    op: tuple(a for a in _ALL if a.op == op) for op in dict.fromkeys(a.op for a in _ALL)
}
# What a user can choose between: the default form of each operation that has several, and the others.
FAITHFUL: dict[str, str] = {op: forms[0].name for op, forms in APPROXIMATIONS.items() if len(forms) > 1}
CHANGING: dict[str, frozenset[str]] = {
    op: frozenset(a.name for a in APPROXIMATIONS[op] if a.changes_model) for op in FAITHFUL
}

__all__ = ["APPROXIMATIONS", "CHANGING", "FAITHFUL", "Approximation", "Domain"]
