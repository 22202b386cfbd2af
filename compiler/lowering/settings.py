"""In which fixed-point format and with which margins a program is lowered; everybody may know all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Calibrated magnitudes are widened by one of these and rounded up to a power of two,
RANGE_MARGIN, WIDE_MARGIN, TIGHT_MARGIN = 1.25, 2.0, 1.1
# calibrated variances and sums by one of these, on both sides.
VARIANCE_MARGIN, LEAN_VARIANCE_MARGIN, TIGHT_VARIANCE_MARGIN = 4.0, 2.0, 1.25


@dataclass(frozen=True)
class Settings:
    """Format, margins, and what trades rounds for bytes.

        frac_bits          of activations
        weight_frac_bits   of weights
        weight_bound       one magnitude for all weights, a power of two, so that it tells next to nothing about them
        truncation         "probabilistic" or "nearest"
        lean               keep what is truncated small, at a little precision, so that truncations can be local ones
        tight, wide        widen calibrated ranges by little only; by more, and let GELU hold for any argument
        inner_frac_bits    of what stands between the products of a polynomial

    The rest is chosen among by compiler/driver/candidates.py:

        root_start         how 1/sqrt(x) weighs comparisons against Newton steps: a key of newton.START_WEIGHTS
        reciprocal_start   the same of 1/x
        row_maximum_arity  how many entries of a row a comparison round of its maximum takes at once
        defer_local        whether truncations that are to be local may be deferred
    """

    frac_bits: int = 16
    weight_frac_bits: int = 16
    weight_bound: float = 8.0
    ring_bits: int = 64
    truncation: str = "probabilistic"
    lean: bool = False
    tight: bool = False
    wide: bool = False
    inner_frac_bits: int = 20
    root_start: str = "balanced"
    reciprocal_start: str = "balanced"
    row_maximum_arity: int = 2
    defer_local: bool = False

    @property
    def range_margin(self) -> float:
        """By how much calibrated magnitudes are widened."""
        return WIDE_MARGIN if self.wide else TIGHT_MARGIN if self.tight else RANGE_MARGIN

    @property
    def variance_margin(self) -> float:
        """By how much calibrated variances and sums are widened, on both sides."""
        if self.tight:
            return TIGHT_VARIANCE_MARGIN
        return LEAN_VARIANCE_MARGIN if self.lean else VARIANCE_MARGIN


def rounded_up(magnitude: float, margin: float = RANGE_MARGIN, steps: int = 1) -> float:
    """The next power of 2^(1/steps) above `magnitude` with margin: the only form in which ranges leave us."""
    return float(2.0 ** (math.ceil(steps * math.log2(max(magnitude * margin, 2.0**-8))) / steps))
