"""A fault: what goes wrong, when, how it is caused, and how each process has to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.commands import Ended
    from tests.faults.place import Place

Causes = Callable[["Place"], Mapping[str, "Ended"]]
USER, ENGINE, INTERRUPTED = 2, 3, 130  # exit codes of mpcc


class Stage(StrEnum):
    """When a fault happens; in the order of the page."""

    FILES = "reading the program"
    KEYS = "keys and hosts"
    INPUTS = "reading inputs"
    STATE = "stored shares"
    MACHINE = "the machine"
    COMPILE = "compiling for the engine"
    MEETING = "parties meet"
    SHARING = "sharing weights"
    IDLE = "waiting for a request"
    REQUEST = "during a request"
    OUTPUT = "telling the answer"
    ATTACK = "attack"


@dataclass(frozen=True)
class End:
    """How a process ends: its exit code (negative: the number of the signal that ended it) and what its line says, as a
    regular expression. Where `says` is empty, it says nothing wrong."""

    code: int
    says: str = ""


@dataclass(frozen=True)
class Fault:
    """One row. `cause` does it to a place and returns how each process ended, by who it was.

    `engine` is a protocol of MP-SPDZ, "spu", or "" where none is started. `damages`: files are changed by hand, and are
    repaired before the next run; otherwise the next run takes the folders as the fault left them.
    """

    name: str
    stage: Stage
    engine: str
    cause: Causes
    ends: Mapping[str, End]
    damages: bool = False

    @property
    def title(self) -> str:
        """Its name in lists of tests."""
        return f"{self.engine or 'none'}: {self.name}"


def refused(what: str, says: str, code: int = ENGINE) -> dict[str, End]:
    """One process, which ends with one line."""
    return {what: End(code, says)}
