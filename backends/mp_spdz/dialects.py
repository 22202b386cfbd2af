"""How MP-SPDZ is driven for each protocol: what is written in the source, and the options of its commands.

The body of a program is the same for all of them. Only truncation is not: MP-SPDZ has an instruction for it in the
protocols of three or four parties with replicated shares, and composes it from random bits in the others. Everything
else about a protocol stands in compiler/protocols.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mpcc.compiler.errors import EngineError
from mpcc.compiler.protocols import PROTOCOLS, TRUNC_ERROR, protocol_of

LOCAL = ("--trunc-error", str(TRUNC_ERROR))
TLS = ("-e",)  # where a majority may be dishonest MP-SPDZ speaks plain text to anybody unless told otherwise
SEAL = 0x6D706363  # stored behind the weights: shares that do not belong together open to something else
DABITS = ("-X",)  # modulo a prime comparisons then cost a sixth


@dataclass(frozen=True)
class Dialect:
    """What is written and called for one protocol.

    `trunc` says how a truncation is written: "instruction" (`trunc_pr`) or "round" (`x.round`, composed by the
    compiler). Both are unbiased, with an error below one unit of the last place.
    """

    protocol: str
    trunc: Literal["instruction", "round"]
    run_options: tuple[str, ...] = ()  # of the party program; most know no --trunc-error and fail on it
    compile_flags: tuple[str, ...] = ()

    @property
    def compile_options(self) -> tuple[str, ...]:
        return ("-E", self.protocol, "-b", "100000", *self.compile_flags)


DIALECTS: Mapping[str, Dialect] = {
    d.protocol: d
    for d in (
        Dialect("ring", "instruction", run_options=LOCAL),
        Dialect("dealer-ring", "round"),
        Dialect("semi2k", "round", run_options=TLS),
        Dialect("hemi", "round", run_options=TLS, compile_flags=DABITS),
        Dialect("temi", "round", run_options=TLS, compile_flags=DABITS),
        Dialect("rep4-ring", "instruction"),
        Dialect("ps-rep-ring", "round"),
        Dialect("sy-rep-ring", "round"),
    )
}


def dialect_of(protocol: str) -> Dialect:
    """The dialect of a protocol.

    Raises:
        MpccError: an unknown protocol.
    """
    return DIALECTS[protocol_of(protocol).name]


def run_options_of(binary: str) -> tuple[str, ...]:
    """What a party program, by its file name, is to be given beside the options that all of them know."""
    return next((DIALECTS[p.name].run_options for p in PROTOCOLS.values() if p.binary == binary), ())


_HEAD = re.compile(r"^# protocol ([a-z0-9-]+), (?:ring|numbers) ", re.MULTILINE)


def check_source(source: str, protocol: str) -> None:
    """Refuse an emitted program that was made for another protocol.

    Most would run: byte code of one protocol is valid on the machine of another, at a multiple of the traffic, with
    another security, or ending in the middle of the run.

    Raises:
        EngineError: the source names another protocol, or none.
    """
    found = _HEAD.search(source)
    if found is None or found[1] != protocol:
        made = f"the program was compiled for {found[1]}" if found else "the program names no protocol"
        raise EngineError(f"{made}, not for {protocol}", todo="the protocol is chosen by mpcc compile: compile again")
