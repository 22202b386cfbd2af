"""Two parties: with a dealer who prepares everything, and alone (oblivious transfer).

Both run Beaver's protocol on additive shares, so every secret product is opened masked and needs a prepared triple.
Measured on MP-SPDZ 3a0a7b1 primitive by primitive. The dealer's bytes reproduce the counters but for some tens of
bytes of framing per call; those of semi2k do for products, and within a few percent for the rest. Rounds are those of
a whole model, in which one delivery of prepared material serves several operations.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpcc.compiler.cost.prices import Amount, Need, PerParty, Price, Protocol, batches, carry_ands, fixed, lg

TRIPLE, MATRIX, BIT, DABIT, EDABIT, AND = "triple", "matrix", "bit", "dabit", "edabit", "and"
DEALER_BATCH, OT_BATCH = 10000, 1000
OT_TRIPLE_BYTES, OT_BATCH_BYTES = 1536, 4096  # 64 bits x 24 bytes, and once per batch
OT_AND_BYTES = 16.1
OT_BIT_BYTES = (8.1, 16.6)  # the two sides of an oblivious transfer differ
OT_DABIT_BYTES = (12.0, 24.0)
Needs = Mapping[Need, int]


# ** with a dealer **
def _triples(a: Amount) -> Needs:
    return {(TRIPLE, 0): a.products}


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
        if batched and total > DEALER_BATCH:
            at_once = -(-DEALER_BATCH // 64)
            vectors = -(-vectors // at_once) * at_once
        return (0, 0, vectors * (8 * 64 + 8 * length))
    items = total // 8 if kind == AND else total  # ANDs come in words of 64
    if batched and kind != MATRIX:
        count, size = batches(items, DEALER_BATCH)
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
    return tuple(round(r + p * (items // DEALER_BATCH)) for r, p in zip(first, per_batch, strict=True))


def _dealer_product_rounds(a: Amount) -> PerParty:
    return _deliveries(a.products, (2, 2, 0), (0.5, 0.5, 1))


def _dealer_trunc_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (3, 3, 1), (2.3, 2.3, 4.7))


def _dealer_nearest_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (2 * lg(a.bits) + 21, 2 * lg(a.bits) + 19, 2), (6.4, 8.3, 9.4))


def _dealer_lt_rounds(a: Amount) -> PerParty:
    return _deliveries(a.n, (2 * lg(a.bits - 1) + 6, 2 * lg(a.bits - 1) + 7, 3), (3, 3.6, 4.3))


DEALER_RING = Protocol(
    name="dealer-ring",
    parties=3,
    security="semi-honest, two parties and a trusted dealer: client and provider learn nothing as long as neither of "
    "them works together with the dealer, who prepares random numbers and never sees a value",
    prices={
        "input_client": Price(fixed(0, 0, 0), fixed(0, 1, 1)),
        "input_public": Price(lambda a: (8 * a.n, 8 * a.n, 0), fixed(3, 3, 1)),
        "input_provider": Price(lambda a: (0, 0, 32 if a.n else 0), fixed(1, 1, 1)),
        "mul": Price(lambda a: (16 * a.n, 16 * a.n, 0), _dealer_product_rounds, _triples),
        "dot": Price(lambda a: (16 * a.products, 16 * a.products, 0), _dealer_product_rounds, _triples),
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
    public_products_local=True,
)


# ** alone **
def _ot_supply(need: Need, total: int, batched: bool) -> PerParty:
    kind, _ = need
    if kind == TRIPLE:
        if not batched:
            return (total * OT_TRIPLE_BYTES,) * 2
        count, size = batches(total, OT_BATCH)
        return (count * (size * OT_TRIPLE_BYTES + OT_BATCH_BYTES),) * 2
    rates = {BIT: OT_BIT_BYTES, DABIT: OT_DABIT_BYTES, AND: (OT_AND_BYTES, OT_AND_BYTES)}[kind]
    return tuple(round(rate * total) for rate in rates)


def _ot_lt_ands(a: Amount) -> int:
    """Adding the two parties' summands bit by bit, and the carry tree."""
    return (carry_ands(a.bits - 1) + a.bits - 1) * a.n


def _ot_nearest_ands(a: Amount) -> int:
    """Both additions run over the whole ring, whatever the widths."""
    return 189 * a.n


def _ot_bits(ands: int) -> PerParty:
    """Two masked bits are opened for every AND."""
    return (ands // 4,) * 2


def _ot_rounds(a: Amount) -> PerParty:
    """Opened in batches, and prepared in batches."""
    return (2 + 4 * (a.products // OT_BATCH),) * 2


SEMI2K = Protocol(
    name="semi2k",
    parties=2,
    security="semi-honest, two parties alone: each is safe from the other as long as both follow the protocol; nobody "
    "else takes part. Matrix products of secrets are very dear here (oblivious transfer)",
    prices={
        "input_client": Price(fixed(0, 0), fixed(0, 0)),
        "input_public": Price(lambda a: (8 * a.n,) * 2, fixed(2, 2)),
        "input_provider": Price(fixed(0, 0), fixed(0, 0)),
        "mul": Price(lambda a: (16 * a.n,) * 2, _ot_rounds, _triples),
        "dot": Price(lambda a: (16 * a.products,) * 2, _ot_rounds, _triples),
        "matmul": Price(lambda a: (16 * a.products,) * 2, _ot_rounds, _triples),
        "trunc_safe": Price(lambda a: (8 * a.n,) * 2, lambda a: (5 + a.n // 80,) * 2, lambda a: {(BIT, 0): 64 * a.n}),
        "trunc_local": Price(fixed(0, 0), fixed(0, 0)),
        "trunc_nearest": Price(
            lambda a: _ot_bits(_ot_nearest_ands(a)),
            lambda a: (16 + a.n // 400,) * 2,
            lambda a: {(AND, 0): _ot_nearest_ands(a), (DABIT, 0): 2 * a.n},
        ),
        "lt": Price(
            lambda a: _ot_bits(_ot_lt_ands(a)),
            lambda a: (2 * lg(a.bits - 1) + 12 + a.n // 400,) * 2,
            lambda a: {(AND, 0): _ot_lt_ands(a), (DABIT, 0): a.n},
        ),
        "reveal": Price(lambda a: (8 * a.n + 16,) * 2, fixed(4, 4)),
    },
    supply=_ot_supply,
    public_products_local=True,
)
