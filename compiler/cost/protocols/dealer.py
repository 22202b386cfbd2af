"""Two parties with a dealer, who prepares everything: `dealer-ring`.

Beaver's protocol on additive shares: every secret product is opened masked and needs a prepared triple. Measured on
MP-SPDZ 3a0a7b1 primitive by primitive; bytes reproduce the counters but for some tens of bytes of framing per call.
Rounds are those of a whole model, in which one delivery of prepared material serves several operations.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpcc.compiler.cost.prices import (
    Amount,
    Need,
    PerParty,
    Price,
    PriceList,
    batches,
    carry_ands,
    fixed,
    lg,
    triples,
)

MATRIX, BIT, DABIT, EDABIT, AND = "matrix", "bit", "dabit", "edabit", "and"
BATCH = 10000
Needs = Mapping[Need, int]


def _matrices(a: Amount) -> Needs:
    return {(MATRIX, 0): a.n}


def _dealer_trunc(a: Amount) -> Needs:
    """A random number in two parts, and its top bit."""
    return _sum_needs({(EDABIT, a.bits): a.n}, {(EDABIT, a.width - a.bits): a.n}, {(BIT, 0): a.n})


def _dealer_nearest(a: Amount) -> Needs:
    """The carry out of the dropped bits, and the sign of what remains."""
    low, high = a.bits, a.width - a.bits + 1
    ands = (carry_ands(low) + carry_ands(high)) * a.words
    return _sum_needs({(EDABIT, low): a.n}, {(EDABIT, high): a.n}, {(DABIT, 0): 2 * a.n, (AND, 0): ands})


def _dealer_lt(a: Amount) -> Needs:
    return {(EDABIT, a.bits): a.n, (DABIT, 0): a.n, (AND, 0): carry_ands(a.bits - 1) * a.words}


def _sum_needs(*needs: Needs) -> Needs:
    total: dict[Need, int] = {}
    for need in needs:
        for key, value in need.items():
            total[key] = total.get(key, 0) + value
    return total


def _dealer_supply(need: Need, total: int, batched: bool) -> PerParty:
    """What the dealer sends: one ring element per item, and the packed bits of numbers whose bits are shared, too."""
    kind, length = need
    if kind == EDABIT:
        vectors = -(-total // 64)
        if batched and total > BATCH:
            at_once = -(-BATCH // 64)
            vectors = -(-vectors // at_once) * at_once
        return (0, 0, vectors * (8 * 64 + 8 * length))
    items = total // 8 if kind == AND else total  # ANDs come in words of 64
    if batched and kind != MATRIX:
        count, size = batches(items, BATCH)
        items = count * size
    return (0, 0, 8 * items)


def _masked_operands(a: Amount) -> PerParty:
    """Both operands of every matrix product are opened."""
    sent = 8 * a.count * a.terms * (a.rows + a.columns)
    return (sent, sent, 0)


def _dealer_carries(a: Amount, ring: int, ands: int, openings: int) -> PerParty:
    """`ring` openings of ring elements by party 1 (party 0 sends as many more), the ANDs, and openings of bits."""
    bits = (2 * ands + openings) * a.words
    return (2 * ring * 8 * a.n + bits, ring * 8 * a.n + bits, 0)


def _deliveries(items: int, first: PerParty, per_batch: tuple[float, float, float]) -> PerParty:
    """Rounds of an operation, with those in which the dealer delivers batches beyond the first (measured)."""
    return tuple(round(r + p * (items // BATCH)) for r, p in zip(first, per_batch, strict=True))


def _dealer_product_rounds(a: Amount) -> PerParty:
    return _deliveries(a.products, (2, 2, 0), (0.5, 0.5, 1))


def _dealer_trunc_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (3, 3, 1), (2.3, 2.3, 4.7))


def _dealer_nearest_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (2 * lg(a.bits) + 21, 2 * lg(a.bits) + 19, 2), (6.4, 8.3, 9.4))


def _dealer_lt_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (2 * lg(a.bits - 1) + 6, 2 * lg(a.bits - 1) + 7, 3), (3, 3.6, 4.3))


DEALER_RING = PriceList(
    protocol="dealer-ring",
    prices={
        "input_client": Price(fixed(0, 0, 0), fixed(0, 1, 1)),
        "input_public": Price(lambda a: (8 * a.n, 8 * a.n, 0), fixed(3, 3, 1)),
        "input_provider": Price(lambda a: (0, 0, 32 if a.n else 0), fixed(1, 1, 1)),
        "mul": Price(lambda a: (16 * a.n, 16 * a.n, 0), _dealer_product_rounds, triples),
        "dot": Price(lambda a: (16 * a.products, 16 * a.products, 0), _dealer_product_rounds, triples),
        "matmul": Price(_masked_operands, lambda a: (3 * a.count, 3 * a.count, a.count), _matrices, merged=False),
        "trunc_safe": Price(lambda a: (8 * a.n, 8 * a.n, 0), _dealer_trunc_rounds, _dealer_trunc),
        "trunc_nearest": Price(
            lambda a: _dealer_carries(a, 2, carry_ands(a.bits) + carry_ands(a.width - a.bits + 1), 2),
            _dealer_nearest_rounds,
            _dealer_nearest,
        ),
        "lt": Price(lambda a: _dealer_carries(a, 1, carry_ands(a.bits - 1), 1), _dealer_lt_rounds, _dealer_lt),
        "reveal": Price(lambda a: (16 * a.n, 8 * a.n, 0), fixed(4, 3, 1)),
    },
    supply=_dealer_supply,
)
