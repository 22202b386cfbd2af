"""Fixed-point numbers: a real x is the integer rint(x * 2^frac_bits) in an int64 array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.errors import InputError, RangeError

RING_BITS = 64
HEADROOM_BITS = 2  # sign, and one bit for the offset that signed truncation adds
VALUE_BITS = RING_BITS - HEADROOM_BITS  # |integer| < 2^62


def encode(x: NDArray[Any], frac_bits: int) -> NDArray[np.int64]:
    """The integers nearest to x * 2^frac_bits (ties to even), in the shape of x.

    InputError if an element is NaN or infinite, RangeError if one needs more than 62 bits. Neither says which value
    it was: it may be a weight or an input.
    """
    values = np.asarray(x)
    if values.dtype.kind not in "fiub":
        raise InputError(f"cannot encode numbers of type {values.dtype}", todo="pass a real floating-point array")
    scaled = np.asarray(values, dtype=np.float64)
    if not np.isfinite(scaled).all():
        raise InputError("a value is NaN or infinite", todo="fixed point has neither; clean the values first")
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(scaled, frac_bits))
    if scaled.size and float(np.abs(scaled).max()) >= 2.0**VALUE_BITS:
        raise RangeError(
            f"a value does not fit {VALUE_BITS} bits with {frac_bits} of them fractional",
            todo="use fewer fractional bits or smaller values",
        )
    return scaled.astype(np.int64)


def decode(v: NDArray[np.int64], frac_bits: int) -> NDArray[np.float64]:
    """The reals v / 2^frac_bits, in the shape of v; exact where |v| <= 2^53."""
    result: NDArray[np.float64] = np.ldexp(np.asarray(v, dtype=np.float64), -frac_bits)
    return np.asarray(result)
