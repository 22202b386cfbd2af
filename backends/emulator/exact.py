"""Integer matrix products modulo 2^64 at floating-point speed.

numpy multiplies integer matrices without BLAS. Float64 BLAS is exact as long as no sum can leave [-2^53, 2^53], so the
operands are split into as few limbs as that needs, by the magnitudes they really have, and the products of limbs are
put together in wrap-around arithmetic.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.fixed import RING_BITS

EXACT_BITS = 53  # float64 holds every integer of magnitude up to 2^53
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def extent(v: Int64) -> tuple[int, int]:
    """Lowest and highest element; (0, 0) for an empty array."""
    return (int(v.min()), int(v.max())) if v.size else (0, 0)


def magnitude_bits(v: Int64) -> int:
    """The smallest n with |element| < 2^n for every element."""
    low, high = extent(v)
    return max(-low, high).bit_length()


def matmul(a: Int64, b: Int64) -> Int64:
    """a @ b modulo 2^64 for a [..., n, k] and b [..., k, m] with equal leading dimensions."""
    terms = a.shape[-1]
    if terms == 0 or a.size == 0 or b.size == 0:
        return np.zeros((*a.shape[:-1], b.shape[-1]), dtype=np.int64)
    width_a, width_b = limb_widths(magnitude_bits(a), magnitude_bits(b), terms)
    limbs_a, limbs_b = _limbs(a, width_a), _limbs(b, width_b)
    result: Int64 | None = None
    for i, x in enumerate(limbs_a):
        for j, y in enumerate(limbs_b):
            shift = i * width_a + j * width_b
            if shift >= RING_BITS:
                continue
            part = np.matmul(x, y).astype(np.int64)
            if shift:
                part = (part.view(np.uint64) << np.uint64(shift)).view(np.int64)
            result = part if result is None else np.add(result, part, out=result)
    assert result is not None
    return result


@lru_cache(maxsize=4096)
def limb_widths(bits_a: int, bits_b: int, terms: int) -> tuple[int, int]:
    """Limb widths in bits for which a sum of `terms` products of limbs is exact, at the fewest matrix products."""
    room = EXACT_BITS - (terms - 1).bit_length()
    best: tuple[int, int, int] | None = None
    for count_a in range(1, 9):
        for count_b in range(1, 9):
            width_a, width_b = max(1, -(-bits_a // count_a)), max(1, -(-bits_b // count_b))
            if width_a + width_b > room:
                continue
            pairs = sum(i * width_a + j * width_b < RING_BITS for i in range(count_a) for j in range(count_b))
            if best is None or pairs < best[0]:
                best = (pairs, width_a, width_b)
    if best is None:
        raise OverflowError(f"a sum of {terms} products has no exact split")
    return best[1], best[2]


def _limbs(v: Int64, width: int) -> list[Float64]:
    """v = sum of limb[i] * 2^(i * width); all limbs but the last are not negative, all have magnitude <= 2^width."""
    count = max(1, -(-magnitude_bits(v) // width))
    if count == 1:
        return [v.astype(np.float64, order="C")]
    mask = np.int64((1 << width) - 1)
    limbs = [((v >> np.int64(i * width)) & mask).astype(np.float64) for i in range(count - 1)]
    limbs.append((v >> np.int64((count - 1) * width)).astype(np.float64))
    return limbs
