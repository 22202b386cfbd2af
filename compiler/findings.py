"""What the stages of the compiler find out about a program, as plain data: kept by the manifest, shown by `inspect`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """Why a tensor is public or private."""

    tensor: str
    visibility: str  # "public" | "provider"
    reason: str
    bytes: int


@dataclass(frozen=True)
class Applied:
    """The form that stands in for an operation, `count` times; `error` is absolute unless `relative`."""

    operation: str
    form: str
    count: int
    domain: str
    error: float | None
    relative: bool = False
    changes_model: bool = False


@dataclass(frozen=True)
class LowRank:
    """A private weight that stands as the base's and an adapter: errors are shares, rounded up to powers of two."""

    tensor: str
    rank: int
    full_rank: int
    error_of_update: float
    error_of_weight: float


@dataclass(frozen=True)
class Alternative:
    """One form of the whole program: what an inference would cost, whether it is the one that was made, and why."""

    name: str
    reason: str
    bytes: int
    rounds: int
    seconds: float
    chosen: bool
    why: str


@dataclass(frozen=True)
class Saving:
    """What an inference would cost more without a pass (estimates), and the source; `problem`: it would not compile."""

    without: str
    bytes: int
    rounds: int
    source_bytes: int
    problem: str = ""


@dataclass(frozen=True)
class PublicNumber:
    """A number in the code of `layer` (`*` stands for numbers of equal layers), used `times` times."""

    layer: str
    source: str  # "file.py:line"
    operation: str
    attribute: str
    value: float
    times: int = 1
