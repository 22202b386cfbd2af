"""What differs between protocols in the emitted source and in the commands that compile and run it, as data.

The body of a program is the same for all of them. Only truncation is not: MP-SPDZ has an instruction for it in the
protocols of three or four parties with replicated shares, and composes it from random bits in the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mpcc.compiler.errors import EngineError, MpccError

THREE = ("client", "provider", "helper")
LOCAL = ("--trunc-error", "16")  # TRUNC_ERROR of passes/choose_truncations


@dataclass(frozen=True)
class Dialect:
    """How MP-SPDZ is to be driven for one protocol.

    `roles` names the players in their order. `trunc` says how a truncation is written: "instruction" (`trunc_pr`) or
    "round" (`x.round`, composed by the compiler). Both are unbiased, with an error below one unit of the last place.
    `local_trunc`: there is a cheaper truncation with a small probability of failure (`passes/choose_truncations`).
    `nearest_is_cheaper`: truncation to nearest, which leaks nothing, costs less here than the probabilistic one.
    `stored_shares`: shares can be read again by a later run (not where they carry a tag under a key of one run).
    """

    protocol: str
    binary: str
    roles: tuple[str, ...]
    trunc: Literal["instruction", "round"]
    run_options: tuple[str, ...] = ()  # of the party program; most know no --trunc-error and fail on it
    local_trunc: bool = False
    nearest_is_cheaper: bool = False
    stored_shares: bool = True

    @property
    def parties(self) -> int:
        return len(self.roles)

    @property
    def compile_options(self) -> tuple[str, ...]:
        return ("-E", self.protocol, "-b", "100000")


DIALECTS: Mapping[str, Dialect] = {
    d.protocol: d
    for d in (
        Dialect("ring", "replicated-ring-party.x", THREE, "instruction", LOCAL, local_trunc=True),
        Dialect("dealer-ring", "dealer-ring-party.x", ("client", "provider", "dealer"), "round"),
        Dialect("semi2k", "semi2k-party.x", ("client", "provider"), "round"),
        Dialect("rep4-ring", "rep4-ring-party.x", (*THREE, "second_helper"), "instruction"),
        Dialect("ps-rep-ring", "ps-rep-ring-party.x", THREE, "round", nearest_is_cheaper=True),
        Dialect("sy-rep-ring", "sy-rep-ring-party.x", THREE, "round", nearest_is_cheaper=True, stored_shares=False),
    )
}

# Protocols of MP-SPDZ that people ask for and that cannot run these programs, with the reason.
_PRIME = "it computes modulo a prime, and mpcc's programs rely on numbers that wrap around at 2^64"
REFUSED: Mapping[str, str] = {"hemi": _PRIME, "temi": _PRIME}


def dialect_of(protocol: str) -> Dialect:
    """The dialect of a protocol.

    Raises:
        MpccError: a protocol that cannot run these programs, or an unknown one.
    """
    known = f"choose one of: {', '.join(DIALECTS)}"
    if protocol in REFUSED:
        instead = "semi2k is the protocol for two parties without a dealer"
        raise MpccError(f"the protocol {protocol!r} is not supported: {REFUSED[protocol]}", todo=f"{instead}; {known}")
    if protocol not in DIALECTS:
        raise MpccError(f"unknown protocol {protocol!r}", todo=known)
    return DIALECTS[protocol]


def run_options_of(binary: str) -> tuple[str, ...]:
    """What a party program, by its file name, is to be given beside the options that all of them know."""
    return next((d.run_options for d in DIALECTS.values() if d.binary == binary), ())


_HEAD = re.compile(r"^# protocol ([a-z0-9-]+), ring ", re.MULTILINE)


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
