"""What is true of every protocol, as one table: who takes part, what it protects against, what it offers.

The command lines of MP-SPDZ stand in backends/mp_spdz/dialects.py, prices in compiler/cost/protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mpcc.compiler.errors import MpccError
from mpcc.compiler.fixed import RING_BITS

# MP-SPDZ chooses the form of a truncation by its width, given that parties accept an error of 2^(width - TRUNC_ERROR):
# widths up to RING_BITS - TRUNC_ERROR select the local one. Measured: at SAFE_WIDTH |x| < 2^62 is truncated without a
# failure probability, at the same price as narrower widths.
TRUNC_ERROR = 16
LOCAL_WIDTH = RING_BITS - TRUNC_ERROR
SAFE_WIDTH = RING_BITS - 1

Rounding = Literal["probabilistic", "nearest"]

TWO = ("client", "provider")
THREE = (*TWO, "helper")
_ABORT = "who deviates is caught, and the run ends without an output"
_ALONE = "semi-honest, two parties alone: each is safe from the other as long as both follow the protocol; nobody else"


@dataclass(frozen=True)
class Protocol:
    """A protocol of one engine.

    `roles` names the players in their order; `security` is a sentence for people.
    """

    name: str
    roles: tuple[str, ...]
    security: str

    @property
    def parties(self) -> int:
        return len(self.roles)


@dataclass(frozen=True)
class MpSpdzProtocol(Protocol):
    """A protocol of MP-SPDZ.

    `binary` is the party program, `{name}-party.x` unless it is given.
    `local_truncation`: there is a cheaper truncation with a small probability of failure (passes/choose_truncations).
    `nearest_is_cheaper`: truncation to nearest, which leaks nothing, costs less here than the probabilistic one.
    `stored_shares`: shares can be read again by a later run (not where they carry a tag under a key of one run);
    `share_bytes` is the size of a stored one, None where it was not measured.
    `public_products_local`: a product of a public matrix with a secret one is computed by each party alone; elsewhere
    the public matrix becomes trivial shares, since the product of shares costs a few bytes and is the faster one.
    `operands_free`: a product costs by its results or its multiplications, however often an operand takes part;
    elsewhere the operands are what is sent.
    `prime`: numbers are taken modulo a prime of 128 bits instead of 2^64. A program for the ring means the same there:
    the verifier keeps every value below 2^63, and only truncations and comparisons, which MP-SPDZ composes in another
    way, rely on numbers that wrap around.
    """

    binary: str = ""
    local_truncation: bool = False
    nearest_is_cheaper: bool = False
    stored_shares: bool = True
    share_bytes: int | None = None
    public_products_local: bool = False
    operands_free: bool = True
    prime: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "binary", self.binary or f"{self.name}-party.x")

    @property
    def truncation(self) -> Rounding:
        """How truncations round unless the user says otherwise."""
        return "nearest" if self.nearest_is_cheaper else "probabilistic"

    @property
    def domain(self) -> str:
        """What the programs compute in, in words."""
        return "numbers modulo a 128-bit prime" if self.prime else f"ring Z_2^{RING_BITS}"


@dataclass(frozen=True)
class SpuProtocol(Protocol):
    """A protocol of SecretFlow SPU; the roles stand in the order of ranks.

    `hosts_like` is the protocol of MP-SPDZ with the same roles: a file of hosts serves both.
    """

    hosts_like: str = ""


def _homomorphic(name: str, how: str) -> MpSpdzProtocol:
    return MpSpdzProtocol(
        name,
        TWO,
        f"{_ALONE} takes part. Products are prepared {how} (ring-LWE); truncations and comparisons hide their operand "
        "up to a chance of 2^-40",
        public_products_local=True,
        operands_free=False,
        prime=True,
    )


PROTOCOLS: Mapping[str, MpSpdzProtocol] = {
    p.name: p
    for p in (
        MpSpdzProtocol(
            "ring",
            THREE,
            "semi-honest, honest majority: any one of the three parties may be corrupted, two together learn "
            "everything",
            binary="replicated-ring-party.x",
            local_truncation=True,
            share_bytes=16,  # two ring elements
        ),
        MpSpdzProtocol(
            "dealer-ring",
            (*TWO, "dealer"),
            "semi-honest, two parties and a trusted dealer: client and provider learn nothing as long as neither of "
            "them works together with the dealer, who prepares random numbers and never sees a value",
            public_products_local=True,
            operands_free=False,
        ),
        MpSpdzProtocol(
            "semi2k",
            TWO,
            f"{_ALONE} takes part. Matrix products of secrets are very dear here (oblivious transfer)",
            public_products_local=True,
        ),
        _homomorphic("hemi", "by semi-homomorphic encryption"),
        _homomorphic("temi", "by encryption under a key that both parties hold a share of"),
        MpSpdzProtocol(
            "rep4-ring",
            (*THREE, "second_helper"),
            f"malicious, four parties: any one may be corrupted and do what it likes; {_ABORT}. Two together learn "
            "everything",
        ),
        MpSpdzProtocol(
            "ps-rep-ring",
            THREE,
            f"malicious, three parties: any one may be corrupted and do what it likes; {_ABORT}. Two together learn "
            "everything. Every product is checked after it was computed, so large matrix products are dear",
            nearest_is_cheaper=True,
            public_products_local=True,
        ),
        MpSpdzProtocol(
            "sy-rep-ring",
            THREE,
            f"malicious, three parties: any one may be corrupted and do what it likes; {_ABORT}. Two together learn "
            "everything. Values carry a tag that is checked before the output is opened",
            nearest_is_cheaper=True,
            stored_shares=False,
        ),
    )
}

# SEMI2K's multiplication triples come from rank 0, which could read everything: its name has to say so.
SPU_PROTOCOLS: Mapping[str, SpuProtocol] = {
    p.name: p
    for p in (
        SpuProtocol("aby3", THREE, "semi-honest, honest majority of three", hosts_like="ring"),
        SpuProtocol("cheetah", TWO, "semi-honest, two parties", hosts_like="semi2k"),
        SpuProtocol(
            "semi2k-trusted-first-party",
            TWO,
            "NOT secure between two parties: the triples come from the first party, the client, which must be trusted",
            hosts_like="semi2k",
        ),
    )
}


def protocol_of(name: str) -> MpSpdzProtocol:
    """A protocol of MP-SPDZ by its name.

    Raises:
        MpccError: an unknown protocol.
    """
    if name not in PROTOCOLS:
        raise MpccError(f"unknown protocol {name!r}", todo=f"choose one of: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def described(name: str) -> Protocol:
    """What is true of a protocol of any engine, by its name. MpccError for an unknown one."""
    return SPU_PROTOCOLS[name] if name in SPU_PROTOCOLS else protocol_of(name)
