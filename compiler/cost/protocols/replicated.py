"""Three parties with replicated shares: `ring`.

Measured on MP-SPDZ 3a0a7b1 primitive by primitive; the formulas reproduce the counters exactly.
"""

from __future__ import annotations

from mpcc.compiler.cost.prices import Amount, PerParty, Price, PriceList, each, fixed, lg


def _ring_comparison(a: Amount) -> PerParty:
    """Sign bit of `bits`-bit values: three-way split, carry tree on packed bits, conversion of the bit to the ring."""
    if a.bits < 3:
        return (8 * a.n + a.words,) * 3
    if a.n > 4:
        return (8 * a.n + (4 * a.bits - 8 - lg(a.bits - 1)) * a.words,) * 3
    return (8 * a.n + sum(-(-ands * 2 ** lg(a.n) // 8) for ands in _carry_levels(a.bits - 1)),) * 3


def _carry_levels(bits: int) -> list[int]:
    """ANDs per element in every level of a comparison: of up to four elements several ANDs share a byte.

    The first level adds up three summands; then pairs of neighbours are joined, which takes three ANDs, two where the
    lowest is among them, and one less again the first time it is.
    """
    levels, alone = [bits], True
    while bits > 1:
        pairs, odd = divmod(bits, 2)
        levels.append(3 * pairs - (1 - odd) - int(alone))
        bits, alone = pairs + odd, bool(odd)
    return levels


def _ring_nearest(a: Amount) -> PerParty:
    return (24 * a.n + 246 * a.words,) * 3 if a.bits == 1 else (32 * a.n + (251 - lg(a.bits)) * a.words,) * 3


def _ring_nearest_rounds(a: Amount) -> PerParty:
    if a.bits == 1:
        return (13, 10, 13)
    return (15, 11, 15) if a.bits == 32 else (16, 12, 16)


RING = PriceList(
    protocol="ring",
    prices={
        "input_client": Price(lambda a: (8 * a.n, 0, 0), fixed(1, 0, 1)),
        "input_public": Price(lambda a: (16 * a.n, 8 * a.n, 8 * a.n), fixed(2, 1, 2)),
        "input_provider": Price(lambda a: (0, 8 * a.n, 0), fixed(1, 1, 0)),
        "mul": Price(each(3, 8), fixed(1, 1, 1)),
        "dot": Price(each(3, 8), fixed(1, 1, 1)),
        "matmul": Price(each(3, 8), fixed(1, 1, 1)),
        "trunc_safe": Price(lambda a: (8 * a.n, 16 * a.n, 8 * a.n), fixed(2, 2, 1)),
        "trunc_local": Price(lambda a: (0, 0, 8 * a.n), fixed(0, 1, 1)),
        "trunc_nearest": Price(_ring_nearest, _ring_nearest_rounds),
        "lt": Price(
            _ring_comparison,
            lambda a: (lg(a.bits - 1) + 3, lg(a.bits - 1) + 2, lg(a.bits - 1) + 3) if a.bits > 2 else (3, 2, 3),
        ),
        "reveal": Price(lambda a: (0, 8 * a.n, 0), fixed(1, 1, 0)),
    },
)
