"""What every engine takes and gives back: a job, its outputs, and what was measured beside the estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One secure inference, ready to run.

    The streams are what the parties feed to the program, as ring elements in the order in which it reads them:
    `public_stream` is given by every party first, then `provider_stream` by the provider and `client_stream` by the
    client. `outputs` names what the client receives, with the number of ring elements of each.
    """

    source: str
    protocol: str
    public_stream: Int64
    provider_stream: Int64
    client_stream: Int64
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Measured:
    """What a run cost. Bytes are sent on the network, seconds are wall-clock time of the slowest party.

    `bytes_by_party` and `rounds_by_party` are the inference proper, in the order of the players (the client first), as
    the parties counted them. Sharing the weights (provisioning), and sharing the input and opening the output
    (`input_bytes`, as in the estimate), are apart and summed over all parties.
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
class JobResult:
    """The client's outputs by name (flat, ring elements as signed integers), and what they cost."""

    outputs: dict[str, Int64]
    measured: Measured


@dataclass(frozen=True)
class Deployment:
    """What every role of a program knows; sessions and stored shares are made for it.

    `layout` is a digest of where which weight stands, `private_elements` the number of ring elements of the provider,
    `client_elements` that of one request.
    """

    source: str
    protocol: str
    layout: str
    public_stream: Int64
    private_elements: int
    client_elements: int
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Served:
    """A session: an answer for every request in order (outputs by name; empty where the client is not here).

    `measured` is each inference alone, of the parties that ran here; `players` says which these are. `weights_bytes`
    and `weights_seconds` are sharing the weights before the first inference, or reading the stored shares (0 bytes).
    """

    answers: tuple[dict[str, Int64], ...]
    measured: tuple[Measured, ...]
    players: tuple[int, ...]
    weights_bytes: int
    weights_seconds: float
    compile_seconds: float
    control_bytes: int


@dataclass(frozen=True)
class Provisioned:
    """A provisioning: bytes are sent by the parties that ran here, seconds of the slowest one."""

    values: int
    bytes: int
    seconds: float
    compile_seconds: float
    compiled: bool
