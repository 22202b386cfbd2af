"""Two parties alone, who prepare by oblivious transfer: `semi2k`.

Beaver's protocol on additive shares: every secret product is opened masked and needs a prepared triple. Measured on
MP-SPDZ 3a0a7b1 primitive by primitive; bytes reproduce the counters for products, and within a few percent for the
rest. Rounds are those of a whole model, in which one batch of prepared material serves several operations.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpcc.compiler.cost.prices import (
    TRIPLE,
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

BIT, DABIT, AND = "bit", "dabit", "and"
BATCH = 1000
TRIPLE_BYTES, BATCH_BYTES = 1536, 4096  # 64 bits x 24 bytes, and once per batch
AND_BYTES = 16.1
BIT_BYTES = (8.1, 16.6)  # the two sides of an oblivious transfer differ
DABIT_BYTES = (12.0, 24.0)
Needs = Mapping[Need, int]


def _supply(need: Need, total: int, batched: bool) -> PerParty:
    kind, _ = need
    if kind == TRIPLE:
        if not batched:
            return (total * TRIPLE_BYTES,) * 2
        count, size = batches(total, BATCH)
        return (count * (size * TRIPLE_BYTES + BATCH_BYTES),) * 2
    rates = {BIT: BIT_BYTES, DABIT: DABIT_BYTES, AND: (AND_BYTES, AND_BYTES)}[kind]
    return tuple(round(rate * total) for rate in rates)


def _lt_ands(a: Amount) -> int:
    """Adding the two parties' summands bit by bit, and the carry tree."""
    return (carry_ands(a.bits - 1) + a.bits - 1) * a.n


def _nearest_ands(a: Amount) -> int:
    """Both additions run over the whole ring, whatever the widths."""
    return 189 * a.n


def _bits(ands: int) -> PerParty:
    """Two masked bits are opened for every AND."""
    return (ands // 4,) * 2


def _rounds(a: Amount) -> PerParty:
    """Opened in batches, and prepared in batches."""
    return (2 + 4 * (a.products // BATCH),) * 2


SEMI2K = PriceList(
    protocol="semi2k",
    prices={
        "input_client": Price(fixed(0, 0), fixed(0, 0)),
        "input_public": Price(lambda a: (8 * a.n,) * 2, fixed(2, 2)),
        "input_provider": Price(fixed(0, 0), fixed(0, 0)),
        "mul": Price(lambda a: (16 * a.n,) * 2, _rounds, triples),
        "dot": Price(lambda a: (16 * a.products,) * 2, _rounds, triples),
        "matmul": Price(lambda a: (16 * a.products,) * 2, _rounds, triples),
        "trunc_safe": Price(lambda a: (8 * a.n,) * 2, lambda a: (5 + a.n // 80,) * 2, lambda a: {(BIT, 0): 64 * a.n}),
        "trunc_local": Price(fixed(0, 0), fixed(0, 0)),
        "trunc_nearest": Price(
            lambda a: _bits(_nearest_ands(a)),
            lambda a: (16 + a.n // 400,) * 2,
            lambda a: {(AND, 0): _nearest_ands(a), (DABIT, 0): 2 * a.n},
        ),
        "lt": Price(
            lambda a: _bits(_lt_ands(a)),
            lambda a: (2 * lg(a.bits - 1) + 12 + a.n // 400,) * 2,
            lambda a: {(AND, 0): _lt_ands(a), (DABIT, 0): a.n},
        ),
        "reveal": Price(lambda a: (8 * a.n + 16,) * 2, fixed(4, 4)),
    },
    supply=_supply,
)
