"""What differs between protocols in the emitted source and in the commands that compile and run it, as data.

The body of a program is the same for all of them. Only truncation is not: MP-SPDZ has an instruction for it in the
protocols of three or four parties with replicated shares, and composes it from random bits in the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mpcc.compiler.errors import MpccError

THREE = ("client", "provider", "helper")


@dataclass(frozen=True)
class Dialect:
    """How MP-SPDZ is to be driven for one protocol.

    `roles` names the players in their order. `trunc` says how a truncation is written: "instruction" (`trunc_pr`) or
    "round" (`x.round`, composed by the compiler). Both are unbiased, with an error below one unit of the last place.
    `learns_nothing` are the roles that hold no data: they take part only.
    """

    protocol: str
    binary: str
    roles: tuple[str, ...]
    trunc: Literal["instruction", "round"]
    run_options: tuple[str, ...] = ()

    @property
    def parties(self) -> int:
        return len(self.roles)

    @property
    def compile_options(self) -> tuple[str, ...]:
        return ("-E", self.protocol, "-b", "100000")

    @property
    def learns_nothing(self) -> tuple[str, ...]:
        return tuple(r for r in self.roles if r not in ("client", "provider"))


DIALECTS: Mapping[str, Dialect] = {
    d.protocol: d
    for d in (
        Dialect("ring", "replicated-ring-party.x", THREE, "instruction"),
        Dialect("dealer-ring", "dealer-ring-party.x", ("client", "provider", "dealer"), "round"),
        Dialect("semi2k", "semi2k-party.x", ("client", "provider"), "round"),
        Dialect("rep4-ring", "rep4-ring-party.x", (*THREE, "second_helper"), "instruction"),
        Dialect("ps-rep-ring", "ps-rep-ring-party.x", THREE, "round"),
        Dialect("sy-rep-ring", "sy-rep-ring-party.x", THREE, "round"),
    )
}

# Protocols of MP-SPDZ that people ask for and that cannot run these programs, with the reason.
REFUSED: Mapping[str, str] = {
    name: "it computes modulo a prime, and mpcc's programs rely on numbers that wrap around at 2^64"
    for name in ("hemi", "temi")
}


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
