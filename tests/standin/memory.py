"""One address space (secret or public) and the order of accesses within a basic block.

MP-SPDZ reorders the instructions of a basic block and relates memory accesses only where both have compile-time
addresses, and of those only the first `budget` elements. Everything else needs a break point in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import HazardError, MemoryAccessError

Int64 = NDArray[np.int64]
GUARD = 64  # unallocated words after each array, so that running over its end is noticed
FREE, ALLOCATED, WRITTEN = 0, 1, 2


@dataclass(frozen=True)
class Access:
    """One load, store or operand of a matrix product in the current basic block."""

    id: int
    write: bool
    direct: bool  # compile-time address: `addresses` is contiguous
    addresses: Int64
    low: int
    high: int


class Space:
    """Words with an allocation state; `name` and the base address tell the spaces apart."""

    def __init__(self, name: str, base: int) -> None:
        self.name, self.base = name, base
        self.next = base
        self.data: Int64 = np.zeros(0, dtype=np.int64)
        self.state = np.zeros(0, dtype=np.uint8)
        self.scratch = np.zeros(0, dtype=np.bool_)
        self.block: list[Access] = []

    def malloc(self, size: int) -> int:
        """The address of `size` fresh words."""
        address = self.next
        self.next += size + GUARD
        needed = self.next - self.base
        if needed > self.data.size:
            grow = max(needed, 2 * self.data.size) - self.data.size
            self.data = np.concatenate([self.data, np.zeros(grow, dtype=np.int64)])
            self.state = np.concatenate([self.state, np.zeros(grow, dtype=np.uint8)])
            self.scratch = np.zeros(self.data.size, dtype=np.bool_)
        self.state[address - self.base : address - self.base + size] = ALLOCATED
        return address

    def load(self, access: Access, budget: int) -> Int64:
        """The words at the addresses of `access`."""
        where = self._inside(access.addresses)
        if (self.state[where] != WRITTEN).any():
            bad = int(access.addresses[self.state[where] != WRITTEN].flat[0])
            raise MemoryAccessError(f"{self.name} memory at {bad} is read before it is written")
        self._order(access, frozenset(), budget)
        return np.asarray(self.data[where])

    def store(self, access: Access, values: Int64, deps: frozenset[int], budget: int) -> None:
        """Write `values`, which depend on the accesses `deps` of this block."""
        where = self._inside(access.addresses)
        if not access.direct and np.unique(where).size != where.size:
            raise MemoryAccessError(f"one store writes a word of {self.name} memory twice")
        self._order(access, deps, budget)
        self.data[where] = values
        self.state[where] = WRITTEN

    def _inside(self, addresses: Int64) -> Int64:
        where: Int64 = addresses - self.base
        outside = (where < 0) | (where >= self.state.size)
        if not outside.any():
            outside = self.state[where] == FREE
        if outside.any():
            raise MemoryAccessError(f"{self.name} address {int(addresses[outside].flat[0])} is not allocated")
        return where

    def _order(self, new: Access, deps: frozenset[int], budget: int) -> None:
        for old in self.block:
            if not (old.write or new.write) or old.id in deps:
                continue
            if old.high < new.low or new.high < old.low or not self._overlap(old, new):
                continue
            if old.direct and new.direct and _tracked(old, new, budget):
                continue
            first, second = ("write" if a.write else "read" for a in (old, new))
            kinds = ["compile-time" if a.direct else "regint" for a in (old, new)]
            raise HazardError(
                f"{second} ({kinds[1]} address) after {first} ({kinds[0]} address) of {self.name} memory around "
                f"{max(old.low, new.low)} without a break_point in between"
            )
        self.block.append(new)

    def _overlap(self, a: Access, b: Access) -> bool:
        if a.direct and b.direct:
            return True  # contiguous, and their spans meet
        self.scratch[a.addresses - self.base] = True
        result = bool(self.scratch[b.addresses - self.base].any())
        self.scratch[a.addresses - self.base] = False
        return result


def _tracked(a: Access, b: Access, budget: int) -> bool:
    """Whether two overlapping direct accesses share one of the addresses that the compiler keeps track of."""
    return max(a.low, b.low) <= min(min(a.high, a.low + budget - 1), min(b.high, b.low + budget - 1))
