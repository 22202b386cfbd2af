"""What a run of the emulator reports beside the outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RangeUse:
    """How much of its bound a ring value used. `largest` and `bound` are real values (already divided by the scale)."""

    name: str  # ring node
    result_of: str  # graph node whose result it is, or ""
    layer: str  # `{i}` is replaced by the iteration
    iteration: int
    largest: float
    bound: float

    @property
    def ratio(self) -> float:
        """largest / bound; above 1 the bound was too small (which is no error by itself)."""
        if self.bound == 0.0:
            return 0.0 if self.largest == 0.0 else float("inf")
        return self.largest / self.bound


@dataclass(frozen=True)
class Overflow:
    """A result that left the range its operation can represent. `reached` and `limit` are magnitudes of integers."""

    name: str
    op: str
    layer: str
    iteration: int
    reached: float
    limit: float

    def __str__(self) -> str:
        return (
            f"{self.op} ({self.name}) reached 2^{np.log2(self.reached):.2f}, the limit is 2^{np.log2(self.limit):.0f}, "
            f"in iteration {self.iteration}"
        )


@dataclass(frozen=True)
class EmulatorResult:
    """Outputs by name (integers at the scale of the revealed node), and what was observed on the way.

    `states` are those of later requests, by name: those given, with what was stored. `trace` maps a graph node to one
    array of real values per loop iteration.
    """

    outputs: dict[str, NDArray[np.int64]]
    trace: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    ranges: list[RangeUse] = field(default_factory=list)
    overflows: list[Overflow] = field(default_factory=list)
    states: dict[str, NDArray[np.int64]] = field(default_factory=dict)
