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

TWO = ("client", "provider")
THREE = (*TWO, "helper")
LOCAL = ("--trunc-error", "16")  # TRUNC_ERROR of passes/choose_truncations
TLS = ("-e",)  # where a majority may be dishonest MP-SPDZ speaks plain text to anybody unless told otherwise
DABITS = ("-X",)  # modulo a prime comparisons then cost a sixth


@dataclass(frozen=True)
class Dialect:
    """How MP-SPDZ is to be driven for one protocol.

    `roles` names the players in their order. `trunc` says how a truncation is written: "instruction" (`trunc_pr`) or
    "round" (`x.round`, composed by the compiler). Both are unbiased, with an error below one unit of the last place.
    `local_trunc`: there is a cheaper truncation with a small probability of failure (`passes/choose_truncations`).
    `nearest_is_cheaper`: truncation to nearest, which leaks nothing, costs less here than the probabilistic one.
    `stored_shares`: shares can be read again by a later run (not where they carry a tag under a key of one run).
    `public_products_local`: a product of a public matrix with a secret one is computed by each party alone; elsewhere
    the public matrix becomes trivial shares, since the product of shares costs a few bytes and is the faster one.
    `operands_free`: a product costs by its results or its multiplications, however often an operand takes part;
    elsewhere the operands are what is sent.
    `prime`: numbers are taken modulo a prime of 128 bits instead of 2^64. A program for the ring means the same there:
    the verifier keeps every value below 2^63, and only truncations and comparisons, which MP-SPDZ composes in another
    way, rely on numbers that wrap around.
    """

    protocol: str
    binary: str
    roles: tuple[str, ...]
    trunc: Literal["instruction", "round"]
    run_options: tuple[str, ...] = ()  # of the party program; most know no --trunc-error and fail on it
    local_trunc: bool = False
    nearest_is_cheaper: bool = False
    stored_shares: bool = True
    public_products_local: bool = False
    operands_free: bool = True
    prime: bool = False
    compile_flags: tuple[str, ...] = ()

    @property
    def parties(self) -> int:
        return len(self.roles)

    @property
    def compile_options(self) -> tuple[str, ...]:
        return ("-E", self.protocol, "-b", "100000", *self.compile_flags)

    @property
    def truncation(self) -> str:
        """The truncation that is taken unless the user says otherwise."""
        return "nearest" if self.nearest_is_cheaper else "probabilistic"

    @property
    def domain(self) -> str:
        """What the programs compute in, in words."""
        return "numbers modulo a 128-bit prime" if self.prime else "ring Z_2^64"


DIALECTS: Mapping[str, Dialect] = {
    d.protocol: d
    for d in (
        Dialect("ring", "replicated-ring-party.x", THREE, "instruction", LOCAL, local_trunc=True),
        Dialect(
            "dealer-ring",
            "dealer-ring-party.x",
            ("client", "provider", "dealer"),
            "round",
            public_products_local=True,
            operands_free=False,
        ),
        Dialect("semi2k", "semi2k-party.x", TWO, "round", TLS, public_products_local=True),
        *(
            Dialect(
                name,
                f"{name}-party.x",
                TWO,
                "round",
                TLS,
                public_products_local=True,
                operands_free=False,
                prime=True,
                compile_flags=DABITS,
            )
            for name in ("hemi", "temi")
        ),
        Dialect("rep4-ring", "rep4-ring-party.x", (*THREE, "second_helper"), "instruction"),
        Dialect(
            "ps-rep-ring", "ps-rep-ring-party.x", THREE, "round", nearest_is_cheaper=True, public_products_local=True
        ),
        Dialect("sy-rep-ring", "sy-rep-ring-party.x", THREE, "round", nearest_is_cheaper=True, stored_shares=False),
    )
}


def dialect_of(protocol: str) -> Dialect:
    """The dialect of a protocol.

    Raises:
        MpccError: an unknown protocol.
    """
    if protocol not in DIALECTS:
        raise MpccError(f"unknown protocol {protocol!r}", todo=f"choose one of: {', '.join(DIALECTS)}")
    return DIALECTS[protocol]


def run_options_of(binary: str) -> tuple[str, ...]:
    """What a party program, by its file name, is to be given beside the options that all of them know."""
    return next((d.run_options for d in DIALECTS.values() if d.binary == binary), ())


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
