"""Two parties alone, triples by homomorphic encryption, numbers modulo a prime of 128 bits.

Measured on MP-SPDZ 3a0a7b1, with comparisons by daBits. Products are exact: a batch of encrypted triples has 8192 of
them. Masks for truncations and comparisons were measured at 1,000 to 20,000 elements (`approximate`), and are priced in
proportion. A share is 16 bytes here.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpcc.compiler.cost.prices import TRIPLE, Amount, Need, PerParty, Price, PriceList, fixed, triples

MASK, NEAREST_MASK, COMPARISON = "mask", "nearest mask", "comparison"
SHARE_BYTES, BATCH = 16, 8192
MASK_BYTES, NEAREST_BYTES = (1650, 1692), (2110, 2214)
COMPARISON_BYTES, COMPARISON_BIT_BYTES = (500, 535), (50, 53.5)
Needs = Mapping[Need, int]


def _opened(a: Amount) -> PerParty:
    """Both masked operands of every product."""
    return (2 * SHARE_BYTES * a.products,) * 2


def _each_once(a: Amount) -> PerParty:
    return (SHARE_BYTES * a.n,) * 2


def _price_list(protocol: str, batch_bytes: int, batch_rounds: int) -> PriceList:
    """The price list, which differs in what a batch of triples costs."""

    def supply(need: Need, total: int, batched: bool) -> PerParty:
        kind, bits = need
        if kind == TRIPLE:
            return ((-(-total // BATCH) * batch_bytes if batched else round(total * batch_bytes / BATCH)),) * 2
        if kind == COMPARISON:
            rates = [a + b * bits for a, b in zip(COMPARISON_BYTES, COMPARISON_BIT_BYTES, strict=True)]
        else:
            rates = list(MASK_BYTES if kind == MASK else NEAREST_BYTES)
        return tuple(round(rate * total) for rate in rates)

    def matmul_rounds(a: Amount) -> PerParty:
        """One batch serves several small products."""
        return (2 + batch_rounds * (a.products // BATCH),) * 2

    product = Price(_opened, lambda a: (2 + (batch_rounds - 14) * (a.products // BATCH),) * 2, triples)
    return PriceList(
        protocol=protocol,
        approximate=True,
        prices={
            "input_client": Price(fixed(0, 0), fixed(0, 0)),
            "input_public": Price(_each_once, fixed(2, 2)),
            "input_provider": Price(fixed(0, 0), fixed(0, 0)),
            "mul": product,
            "dot": product,
            "matmul": Price(_opened, matmul_rounds, triples),
            "trunc_safe": Price(_each_once, lambda a: (6 + a.n // 49,) * 2, lambda a: {(MASK, 0): a.n}),
            "trunc_nearest": Price(
                lambda a: (2 * SHARE_BYTES * a.n,) * 2,
                lambda a: (20 + a.n // 19,) * 2,
                lambda a: {(NEAREST_MASK, 0): a.n},
            ),
            "lt": Price(_each_once, lambda a: (20 + a.n * a.bits // 430,) * 2, lambda a: {(COMPARISON, a.bits): a.n}),
            "reveal": Price(lambda a: (SHARE_BYTES * a.n + 16,) * 2, fixed(4, 4)),
        },
        supply=supply,
    )


HEMI = _price_list("hemi", 1_573_144, 16)
TEMI = _price_list("temi", 1_933_584, 20)
