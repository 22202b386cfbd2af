"""What a role is about to take part in, as plain data: read from checked files, torch-free.

Everything comes from what every role runs (the ring program, the graph inside MPC, the manifest), after the checks that
a role makes before a run. What only the author of a program can know is said to be the author's word: the evidence, and
how large values were on the calibration inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mpcc.compiler.bundle.contents import Bundle
from mpcc.compiler.errors import MpccError
from mpcc.compiler.protocols import Protocol, protocol_of
from mpcc.extraction import Extraction, extraction
from mpcc.inspection import groups, roles, shared_tensors
from mpcc.passes.ring.choose_truncations import failure_at_bounds, local_elements
from mpcc.program import Program
from mpcc.runtime.mp_spdz.emitted import emitted
from mpcc.runtime.parties.agreement import digest_of
from mpcc.runtime.program_digest import program_parts
from mpcc.told import Told, told

HEX_DIGITS = frozenset("0123456789abcdef")
DIGEST_LENGTH = 64
EACH, ONCE = "each request", "once"
SHARES, OPEN = "as secret shares", "in clear, to every party"


@dataclass(frozen=True)
class Given:
    """A tensor that a role gives into MPC, in ring elements: `how` and `when` in words."""

    name: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    how: str
    when: str


@dataclass(frozen=True)
class Opened:
    """A value that leaves MPC, or (`clear`) that the client computes alone."""

    name: str
    shape: tuple[int, ...]
    elements: int
    to: str
    clear: bool


@dataclass(frozen=True)
class Part:
    """A role: what it gives and learns."""

    gives: tuple[Given, ...]
    learns: tuple[str, ...]

    @property
    def bytes_each(self) -> int:
        """What it gives with every request."""
        return sum(g.bytes for g in self.gives if g.when == EACH)

    @property
    def bytes_once(self) -> int:
        """What it gives once a session, or once for all with stored shares."""
        return sum(g.bytes for g in self.gives if g.when == ONCE)


@dataclass(frozen=True)
class Failure:
    """The chance that a truncation of one inference fails: an upper bound for inputs like the calibration's, by the
    author's word, and one for any input whose values keep within the bounds of the program.
    """

    local_truncations: int
    like_calibration: float | None  # None in a part that does not say
    at_bounds: float


@dataclass(frozen=True)
class Audit:
    """All of it. `protocol` is the one that runs the program; `parts` of roles stand in the order of the players."""

    bundle: Bundle
    protocol: Protocol
    digest: str
    digest_parts: Mapping[str, str]
    parts: Mapping[str, Part]
    everybody_learns: tuple[str, ...]
    opened: tuple[Opened, ...]
    told: tuple[Told, ...]
    failure: Failure
    asking: Extraction

    @property
    def told_at_most(self) -> float:
        """Bits about the private weights, at most."""
        return sum(t.at_most for t in self.told)

    @property
    def told_coded(self) -> float:
        """Bits about them in a code for their own frequencies, of what is listed one by one."""
        return sum(t.coded or 0.0 for t in self.told)


def audit(program: Program, protocol: Protocol | None = None) -> Audit:
    """What there is to know before taking part; `protocol` is an engine's own where it is not the program's.

    Raises:
        MpccError: the files do not pass the checks that every role makes before a run.
    """
    check(program)
    bundle = program.bundle
    parts = program_parts(program.deployment())
    chosen = protocol or protocol_of(program.protocol)
    rows = told(bundle.manifest, bundle.ring)
    return Audit(
        bundle,
        chosen,
        digest_of(parts),
        parts,
        _parts(program, chosen.roles),
        _everybody(bundle, rows),
        _opened(bundle),
        rows,
        _failure(bundle),
        extraction(bundle),
    )


def _failure(bundle: Bundle) -> Failure:
    like = None if bundle.manifest.reduced else bundle.manifest.failure_probability
    return Failure(local_elements(bundle.ring), like, failure_at_bounds(bundle.ring))


def check(program: Program) -> None:
    """What a role checks before a run, after loading: the source is the one that the ring program says, and, where the
    client's part is here, its graphs mean something. MpccError if not.
    """
    emitted(program.deployment())
    if program.bundle.client is not None:
        from mpcc.clear import check_program  # who has the client's part has torch

        check_program(program.bundle)


def check_role(audited: Audit, role: str) -> None:
    """MpccError if the protocol has no such role."""
    if role not in audited.parts:
        raise MpccError(f"{audited.protocol.name} has no role {role!r}", todo=f"its roles: {', '.join(audited.parts)}")


def check_accepted(digest: str, accepted: str) -> None:
    """MpccError unless a program's digest is the one that was accepted."""
    wanted = accepted.strip().lower()
    if len(wanted) != DIGEST_LENGTH or not HEX_DIGITS.issuperset(wanted):
        raise MpccError(
            f"what is accepted is no digest of a program: it has {DIGEST_LENGTH} hexadecimal digits",
            todo="copy it from: mpcc audit PROGRAM",
        )
    if digest != wanted:
        raise MpccError(
            f"this is not the program that was accepted: its digest is {digest}",
            todo="look at it with mpcc audit, and accept this digest if all agree to it",
        )


# ** who gives and learns what **
def _parts(program: Program, names: Sequence[str]) -> dict[str, Part]:
    bundle = program.bundle
    element = bundle.manifest.ring_bits // 8
    given = tuple(
        Given(t.name, t.shape, t.elements, t.bytes, OPEN if t.public else SHARES, EACH)
        for t in shared_tensors(bundle.ring)
    )
    shapes = {name: n.type.shape for n, _ in bundle.ring.walk() if n.op == "param" for name in n.strs_attr("tensors")}
    weights = tuple(
        Given(p.tensor, shapes.get(p.tensor, ()), p.elements, p.elements * element, SHARES, ONCE)
        for p in bundle.manifest.private_weights
    )
    requests = _of_requests(bundle)
    parts = {"client": Part(given, roles(program)["client"].learns), "provider": Part(weights, requests)}
    return {role: parts.get(role, Part((), requests)) for role in names}


def _of_requests(bundle: Bundle) -> tuple[str, ...]:
    """What who is not the client learns of inputs."""
    public = [i.name for i in bundle.manifest.inputs if i.role == "public"]
    learns = [f"the input {name}, which is open to all" for name in public]
    learns += [
        "how many requests there are, when, and how long each takes",
        f"nothing {'else ' if public else ''}of an input",
    ]
    return tuple(learns)


def _everybody(bundle: Bundle, rows: Sequence[Told]) -> tuple[str, ...]:
    bits = f"about the private weights: at most {math.ceil(sum(t.at_most for t in rows)):,} bits, counted below"
    program = "the program inside MPC, with its names, shapes and bounds, the same for every request"
    if bundle.manifest.reduced:
        return program, f"{bits}; client and provider are told more"
    return (
        program,
        "client and provider: architecture, labels, public weights, and all evidence and numbers below",
        bits,
    )


def _opened(bundle: Bundle) -> tuple[Opened, ...]:
    receivers = {n.str_attr("name"): n.str_attr("to") for n in bundle.ring if n.op == "reveal"}
    return tuple(
        Opened(o.name, o.shape, math.prod(o.shape), receivers.get(o.name, "client"), o.clear)
        for o in bundle.manifest.outputs
    )


# ** as JSON **
def audit_json(audited: Audit, role: str | None = None) -> dict[str, object]:
    """All of it, ready for JSON; of one role or of all.

    Keys: program, digest, digest_parts, roles, everybody_learns, opened, weights, numbers, told, failure, asking.
    """
    manifest = audited.bundle.manifest
    shown = {role: audited.parts[role]} if role is not None else audited.parts
    return {
        "program": {
            "architecture": manifest.architecture,
            "mpcc": manifest.mpcc,
            "protocol": audited.protocol.name,
            "security": audited.protocol.security,
            "ring_bits": manifest.ring_bits,
            "truncation": manifest.truncation,
            "profile": manifest.profile,
            "output": manifest.output,
            "reduced": manifest.reduced,
        },
        "digest": audited.digest,
        "digest_parts": dict(audited.digest_parts),
        "roles": {
            name: asdict(part) | {"bytes_each": part.bytes_each, "bytes_once": part.bytes_once}
            for name, part in shown.items()
        },
        "everybody_learns": list(audited.everybody_learns),
        "opened": [asdict(o) for o in audited.opened],
        "weights": {
            "groups": [asdict(g) for g in groups(manifest.evidence)],
            "evidence": [asdict(e) for e in manifest.evidence],
        },
        "numbers": [asdict(n) for n in manifest.numbers],
        "told": {
            "at_most_bits": audited.told_at_most,
            "coded_bits": audited.told_coded,
            "kinds": [asdict(t) for t in audited.told],
        },
        "failure": asdict(audited.failure),
        "asking": vars(audited.asking) | {"answers": audited.asking.answers},
    }
