"""The state of one execution: memory, inputs and outputs, random numbers, loops, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import CompilerError, StandinError
from .memory import Access, Space

Int64 = NDArray[np.int64]


@dataclass
class Counter:
    """How often a primitive was called and on how many elements (results) in all."""

    calls: int = 0
    elements: int = 0


@dataclass
class Outputs:
    """What a program wrote.

    `private` holds the binary output of each player, `public` what was opened to all; integers as int64 arrays.
    `counters` maps a primitive to its calls and elements.
    """

    private: dict[int, list[Int64]] = field(default_factory=dict)
    public: list[Int64] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    counters: dict[str, Counter] = field(default_factory=dict)


@dataclass
class Frame:
    """One run of a loop body (or the program itself): registers made in it are dead once it has ended."""

    alive: bool = True


class Machine:
    """Everything that the types and functions of the stand-in share."""

    def __init__(self, inputs: Mapping[int, Int64], nearest: bool, seed: int, persistence: dict[str, Int64]) -> None:
        self.spaces = {"s": Space("sint", 8192), "c": Space("cint", 1 << 40)}
        self.inputs = {player: np.asarray(values) for player, values in inputs.items()}
        for player, values in self.inputs.items():
            if values.dtype != np.int64 or values.ndim != 1:
                raise StandinError(f"input of player {player} is not a flat int64 array")
        self.consumed = dict.fromkeys(self.inputs, 0)
        self.nearest = nearest
        self.rng = np.random.default_rng(seed)
        self.persistence = persistence
        self.seen_by: int | None = None
        self.budget = 1000
        self.outputs = Outputs()
        self.frame = Frame()
        self.timers: set[int] = set()
        self.unused_decorators: set[object] = set()
        self.events = 0
        self.block_start = 0

    def count(self, primitive: str, elements: int) -> None:
        counter = self.outputs.counters.setdefault(primitive, Counter())
        counter.calls += 1
        counter.elements += elements

    def new_block(self) -> None:
        """Start a basic block: what follows is executed after what precedes."""
        for space in self.spaces.values():
            space.block.clear()
        self.block_start = self.events

    def live_deps(self, deps: frozenset[int]) -> frozenset[int]:
        """Those of `deps` that happened in this block."""
        return frozenset(d for d in deps if d > self.block_start) if deps else deps

    def access(self, addresses: Int64, *, write: bool, direct: bool) -> Access:
        self.events += 1
        return Access(self.events, write, direct, addresses, int(addresses.min()), int(addresses.max()))

    def read_input(self, player: int, size: int) -> Int64:
        """The next `size` integers of a player's binary input."""
        if player not in self.inputs:
            raise StandinError(f"player {player} has no input")
        start = self.consumed[player]
        values = self.inputs[player][start : start + size]
        if values.size != size:
            raise StandinError(f"player {player} has {values.size} integers left, {size} are read")
        self.consumed[player] = start + size
        return values

    def read_public_input(self, size: int) -> Int64:
        """The next `size` integers of every player's binary input, which have to agree unless one player's are seen."""
        if not self.inputs:
            raise StandinError("no player has an input")
        streams = {player: self.read_input(player, size) for player in sorted(self.inputs)}
        if self.seen_by is not None:
            return streams[self.seen_by]
        first = next(iter(streams.values()))
        if any((stream != first).any() for stream in streams.values()):
            raise StandinError("the players' copies of a public input differ")
        return first

    def write_private(self, player: int, values: Int64) -> None:
        self.outputs.private.setdefault(player, []).append(values.copy())


_current: list[Machine] = []


def machine() -> Machine:
    """The machine of the execution under way."""
    if not _current:
        raise CompilerError("there is no execution under way")
    return _current[-1]


def enter(new: Machine) -> None:
    _current.append(new)


def leave() -> None:
    _current.pop()
