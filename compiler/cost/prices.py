"""How price lists are written: what is bought, what it costs while a program runs, and what must be prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PerParty = tuple[int, ...]
Need = tuple[str, int]  # a kind of prepared material and its length in bits (0 where it has none)


@dataclass(frozen=True)
class Amount:
    """How much of a primitive is done at once: `n` elements of the result.

    `bits` and `width` are those of comparisons and truncations, `terms` the products that are summed up in an element,
    `rows` and `columns` the shape of one matrix product of `count` in a batch.
    """

    n: int
    bits: int = 0
    width: int = 63
    terms: int = 1
    rows: int = 1
    columns: int = 1
    count: int = 1

    @property
    def words(self) -> int:
        """Bytes of one bit per element: MP-SPDZ packs up to 640 of them in bytes, more in 64-bit words."""
        return -(-self.n // 8) if self.n <= 640 else 8 * -(-self.n // 64)

    @property
    def products(self) -> int:
        return self.n * self.terms


def lg(x: int) -> int:
    """ceil(log2 x)."""
    return (x - 1).bit_length()


def carry_ands(bits: int) -> int:
    """ANDs per element of the tree that finds the carry out of an addition of `bits`-bit numbers."""
    return 2 * (bits - 1) - lg(bits) if bits > 1 else 0


TRIPLE = "triple"


def triples(a: Amount) -> Mapping[Need, int]:
    """One prepared triple for every product."""
    return {(TRIPLE, 0): a.products}


def nothing(a: Amount) -> Mapping[Need, int]:
    """No preparation."""
    return {}


@dataclass(frozen=True)
class Price:
    """Bytes sent and rounds counted by every party, and what has to be prepared.

    `merged` says whether independent operations of one kind at the same depth share their rounds.
    """

    bytes: Callable[[Amount], PerParty]
    rounds: Callable[[Amount], PerParty]
    needs: Callable[[Amount], Mapping[Need, int]] = nothing
    merged: bool = True


def no_supply(need: Need, total: int, batched: bool) -> PerParty:
    """Of protocols that prepare nothing."""
    return ()


@dataclass(frozen=True)
class PriceList:
    """What the primitives cost in a protocol, by the price keys of ring/rules.py and `input_{owner}`.

    `supply(need, total, batched)` is what each party sends to prepare `total` of a material, where `batched` rounds up
    to the batches in which MP-SPDZ makes it. A price list that is `approximate` was measured at a few sizes only, and
    does not tell preparation from the run.
    """

    protocol: str
    prices: Mapping[str, Price]
    supply: Callable[[Need, int, bool], PerParty] = field(default=no_supply)
    approximate: bool = False


def batches(total: int, size: int) -> tuple[int, int]:
    """(number, size) of the batches that MP-SPDZ makes of a known total: up to ten fit it exactly."""
    if total <= size:
        return (1, total) if total else (0, 0)
    parts = next((i for i in range(2, 11) if -(-total // i) <= size), None)
    chosen = -(-total // parts) if parts is not None else size
    return -(-total // chosen), chosen


def each(parties: int, *bytes_per_element: float) -> Callable[[Amount], PerParty]:
    """So many bytes per element for every party, or one figure per party."""
    rates = bytes_per_element * parties if len(bytes_per_element) == 1 else bytes_per_element
    return lambda a: tuple(round(rate * a.n) for rate in rates)


def fixed(*rounds: int) -> Callable[[Amount], PerParty]:
    """The same for every amount."""
    return lambda a: rounds
