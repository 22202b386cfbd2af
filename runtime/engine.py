"""What an engine is, and what all of them take and give back.

An engine runs compiled programs: all parties on this machine, or one role of several machines. It is one class; what it
can do is asked of it, never concluded from its name. The list of engines is in `runtime/engines.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.errors import InternalError, MpccError

if TYPE_CHECKING:
    from mpcc.runtime.deployment import Deployment
    from mpcc.runtime.parties.processes import Limits
    from mpcc.runtime.parties.site import Site

Int64 = NDArray[np.int64]
Array = NDArray[Any]
Arrays = Mapping[str, Array]
Answer = dict[str, Array]
OnStage = Callable[[str], None]
OnAnswer = Callable[[int, Answer], None]
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Options:
    """What users choose of how an engine runs. Each engine checks what concerns it and ignores the rest.

    `truncation` is for the emulator: another one than the program was compiled with; `seed` that of its random numbers.
    """

    spu_protocol: str = "aby3"
    seed: int = 0
    truncation: str | None = None


@dataclass(frozen=True)
class Request:
    """One input, as the client has prepared it: the values it shares by node, and the same as ring elements by name.

    `step` says which of the session's programs it is for.
    """

    values: Arrays
    shared: Mapping[str, Int64]
    step: int = 0


@dataclass(frozen=True)
class Measured:
    """What a run cost. Bytes are sent on the network, seconds are wall-clock time of the slowest party.

    `bytes_by_party` and `rounds_by_party` (or messages, see `Engine.exchanges`) are the inference proper, in the order
    of the players (the client first), as the parties counted them. Sharing the weights (provisioning), and sharing the
    input and opening the output (`input_bytes`, as in the estimate), are apart and summed over all parties.
    """

    engine: str
    bytes_by_party: tuple[int, ...]
    rounds_by_party: tuple[int, ...]
    seconds: float
    provisioning_bytes: int
    provisioning_seconds: float
    input_bytes: int
    compile_seconds: float
    control_bytes: int = 0  # asking the client for another request, checking that stored shares belong together

    @property
    def bytes_online(self) -> int:
        return sum(self.bytes_by_party)

    @property
    def rounds(self) -> int:
        """Rounds of the busiest party."""
        return max(self.rounds_by_party, default=0)


@dataclass(frozen=True)
class Served:
    """A session: an answer for every request in order (outputs by name; empty where the client is not here).

    `roles` are those of all players, `players` the numbers of those that ran here; `measured` is each inference alone,
    of these. `weights_bytes` and `weights_seconds` are sharing the weights before the first inference, or reading the
    stored shares (`stored`, 0 bytes). The provider ends the session after `most_requests` (None: when the client does).
    """

    engine: str
    protocol: str
    roles: tuple[str, ...]
    players: tuple[int, ...]
    answers: tuple[Answer, ...]
    measured: tuple[Measured, ...]
    weights_bytes: int = 0
    weights_seconds: float = 0.0
    compile_seconds: float = 0.0
    control_bytes: int = 0
    stored: bool = False
    most_requests: int | None = None

    @property
    def limit_reached(self) -> bool:
        """Whether the session ended because the provider answers no more requests."""
        return self.most_requests is not None and len(self.measured) >= self.most_requests


@dataclass(frozen=True)
class Provisioned:
    """A provisioning: bytes are sent by the parties that ran here, seconds of the slowest one."""

    values: int
    bytes: int
    seconds: float
    compile_seconds: float
    compiled: bool


@dataclass(frozen=True)
class Availability:
    """Whether an engine can be used here; what was found, or why not and what to do about it."""

    ready: bool
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Finding:
    """One check of this machine: what was found and, unless all is well, what to do."""

    check: str
    status: Status
    found: str
    todo: str = ""


class Engine(ABC):
    """One way to run programs, with its options."""

    name: ClassVar[str]
    secure: ClassVar[bool]  # protects the parties from each other; otherwise it computes in clear
    stores_shares: ClassVar[bool] = False  # of the weights, for later sessions
    has_parties: ClassVar[bool] = False  # processes that can run on machines of their own
    estimated: ClassVar[bool] = False  # the estimates of bytes and rounds are about this engine
    exchanges: ClassVar[str] = "rounds"  # what `Measured.rounds` counts: rounds, messages, "" where nothing is sent
    traces: ClassVar[bool] = False  # values inside can be looked at
    keeps_states: ClassVar[bool] = False  # from one request of a session to the next
    unprovisioned: ClassVar[str] = ""  # why it stores no shares

    @classmethod
    @abstractmethod
    def configured(cls, options: Options) -> Engine:
        """The engine with these options. MpccError if one of its own is wrong."""

    # ** whether it is here **
    @abstractmethod
    def check(self) -> None:
        """EngineError if it is not here, or cannot be used."""

    @abstractmethod
    def availability(self) -> Availability:
        """Whether it is here, in words."""

    @abstractmethod
    def examine(self, protocol: str | None) -> Iterator[Finding]:
        """All that there is to know about it on this machine; "fail" is what it needs for a program of the protocol."""

    # ** who takes part **
    @abstractmethod
    def protocol(self, compiled: str) -> str:
        """The protocol that runs a program compiled for another or the same one. EngineError if there is none."""

    @abstractmethod
    def roles(self, compiled: str) -> tuple[str, ...]:
        """The roles of this protocol, by player."""

    # ** what it does **
    @abstractmethod
    def run(
        self,
        program: Deployment,
        requests: Iterable[Request],
        weights: Arrays | None,
        *,
        state: Path | None = None,
        site: Site | None = None,
        limits: Limits | None = None,
        on_stage: OnStage = lambda stage: None,
        on_answer: OnAnswer = lambda number, answer: None,
    ) -> Served:
        """Answer the client's requests in one session: of all parties here, or as the client of a site.

        Args:
            requests: each is asked for when the one before is on its way.
            weights: the provider's by tensor; None where it is not here, or where its shares are stored.
            state: the folder of stored shares, instead of sharing the weights first.
            site: the roles that run here and where the others are; by default all roles are here.
            on_stage: called with "compile", "run" and "read" as they begin.
            on_answer: called with number and outputs (reals, by name) of each request as they come.

        Raises:
            EngineError: with every process ended and the working folder removed. The engine is not here, the state is
                not this program's, or a party fails or stalls.
            MpccError: this engine stores no shares, or has no parties on other machines.
        """

    def serve(
        self,
        program: Deployment,
        weights: Arrays | None,
        site: Site,
        *,
        state: Path | None = None,
        limits: Limits | None = None,
        most_requests: int | None = None,
        on_stage: OnStage = lambda stage: None,
    ) -> Served:
        """A role of a site that is not the client: take part until the client has no more requests, or until the
        provider has answered its `most_requests`. Raises as `run`."""
        raise self.no_parties()

    def provision(
        self,
        program: Deployment,
        weights: Arrays | None,
        state: Path,
        *,
        site: Site | None = None,
        limits: Limits | None = None,
        on_stage: OnStage = lambda stage: None,
    ) -> Provisioned:
        """Share the weights and store the shares below `state`; what was there stays until that is done. Raises as
        `run`."""
        raise self.nothing_stored()

    def nothing_stored(self) -> MpccError:
        """The error where stored shares are asked of an engine that has none."""
        return MpccError(f"the {self.name} engine stores no shares: {self.unprovisioned}", todo="run without them")

    def no_parties(self) -> MpccError:
        """The error where one role is asked of an engine that has no parties."""
        return MpccError(f"the engine {self.name!r} has no parties", todo="choose an engine that has")


def without_client(site: Site) -> Site:
    """The site of a role that serves. InternalError for the client, who has requests to make."""
    if "client" in site.identities:
        raise InternalError("the client runs, it does not serve")
    return site
