"""Honest majority against malicious parties: who deviates is caught, and the run ends without an output.

Coarse figures (`approximate`), measured on MP-SPDZ 3a0a7b1 at 10240 elements and on one BERT layer: preparation and
verification are part of them, their batches are not modelled, and what `ps-rep-ring` verifies later is counted with the
products.
"""

from __future__ import annotations

from collections.abc import Callable

from mpcc.compiler.cost.prices import Amount, Need, PerParty, Price, PriceList, each, fixed, lg


def _rep4_lt(a: Amount) -> PerParty:
    """Linear in the bits, as measured from 8 to 63."""
    first, third = 31.2 + 1.237 * (a.bits - 8), 19.7 + 0.619 * (a.bits - 8)
    return tuple(round(rate * a.n) for rate in (first, first - 8, third, third - 8))


def _rep4_nearest(a: Amount) -> PerParty:
    """There is no cheap way to split shares of four parties: composed from random bits."""
    w = a.width
    return tuple(round(rate * a.n) for rate in (53.5 * w - 43, 45.6 * w - 57, 30.6 * w - 4, 22.8 * w - 18))


REP4_RING = PriceList(
    protocol="rep4-ring",
    approximate=True,
    prices={
        "input_client": Price(lambda a: (16 * a.n, 64, 0, 64), fixed(2, 4, 2, 4)),
        "input_public": Price(each(4, 40, 8, 8, 8), fixed(6, 10, 6, 10)),
        "input_provider": Price(lambda a: (64, 16 * a.n, 64, 0) if a.n else (0,) * 4, fixed(4, 2, 4, 2)),
        "mul": Price(each(4, 16, 16, 8, 8), fixed(1, 1, 1, 1)),
        "dot": Price(each(4, 16, 16, 8, 8), fixed(1, 1, 1, 1)),
        "matmul": Price(each(4, 16, 16, 8, 8), fixed(1, 1, 1, 1)),
        "trunc_safe": Price(each(4, 40, 24, 24, 8), fixed(4, 4, 4, 4)),
        "trunc_nearest": Price(_rep4_nearest, fixed(19, 19, 19, 19)),
        "lt": Price(_rep4_lt, lambda a: (lg(a.bits) + 8,) * 4),
        "reveal": Price(lambda a: (8 * a.n + 32,) * 4, fixed(3, 3, 3, 3)),
    },
)


def _rounds(once: int, elements: int) -> Callable[[Amount], PerParty]:
    """Rounds of an operation, one more for so many elements: random bits are made and checked in batches."""
    return lambda a: (once + a.n // elements,) * 3


def _per_product(rate: int) -> Price:
    return Price(lambda a: (rate * a.products,) * 3, fixed(1, 1, 1))


PS_REP_RING = PriceList(
    protocol="ps-rep-ring",
    approximate=True,
    prices={
        "input_client": Price(lambda a: (8 * a.n, 0, 0), fixed(1, 0, 1)),
        "input_public": Price(each(3, 24, 8, 8), fixed(4, 2, 4)),
        "input_provider": Price(lambda a: (0, 8 * a.n, 0), fixed(1, 1, 0)),
        "mul": _per_product(39),
        "dot": _per_product(39),
        "matmul": _per_product(39),
        "trunc_safe": Price(each(3, 640), _rounds(22, 250)),
        "trunc_nearest": Price(each(3, 600), _rounds(21, 312)),
        "lt": Price(lambda a: (round((62 + 5.1 * a.bits) * a.n),) * 3, _rounds(23, 1400)),
        "reveal": Price(lambda a: (0, 8 * a.n, 0), fixed(1, 1, 0)),
    },
)

BATCH = "batches of random bits"
SY_BATCH_BYTES = 850_000  # what a small program leaves unused, whatever it uses


def _sy_supply(need: Need, total: int, batched: bool) -> PerParty:
    return (SY_BATCH_BYTES if batched and total else 0,) * 3


SY_REP_RING = PriceList(
    protocol="sy-rep-ring",
    approximate=True,
    supply=_sy_supply,
    prices={
        "input_client": Price(each(3, 26, 13, 13), fixed(2, 1, 2)),
        "input_public": Price(each(3, 60, 34, 34), fixed(6, 4, 6)),
        "input_provider": Price(each(3, 13, 26, 13), fixed(2, 2, 1)),
        "mul": Price(each(3, 26), fixed(1, 1, 1)),
        "dot": Price(each(3, 26), fixed(2, 2, 2)),
        "matmul": Price(each(3, 26), fixed(2, 2, 2)),
        "trunc_safe": Price(each(3, 750), _rounds(33, 37), lambda a: {(BATCH, 0): 1}),
        "trunc_nearest": Price(each(3, 650), _rounds(21, 46), lambda a: {(BATCH, 0): 1}),
        "lt": Price(lambda a: (round((58 + 5.7 * a.bits) * a.n),) * 3, _rounds(19, 188)),
        "reveal": Price(lambda a: tuple(101000 + round(r * a.n) for r in (36, 62, 36)), fixed(29, 28, 28)),
    },
)
