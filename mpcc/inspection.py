"""What `mpcc inspect` tells, as plain data: evidence, who computes and learns what, costs, approximations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.compiler.bundle.manifest import Manifest, OutputSpec
from mpcc.compiler.cost import Network, Row
from mpcc.compiler.findings import Alternative, Evidence
from mpcc.compiler.protocols import PROTOCOLS, protocol_of
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.types import LABEL
from mpcc.extraction import extraction

if TYPE_CHECKING:
    from mpcc.program import Program

SITES = {"compile": "public", "client": "client", "provider": "provider", "mpc": "mpc"}
_LAYER = re.compile(r"[0-9]{1,9}")  # the number of a layer in a name
_OF_BASE = re.compile(r"^(byte-equal to|differs from) \S+ of (.+)$")


@dataclass(frozen=True)
class Group:
    """Tensors of one layer (or run of equal layers) with one label and one reason."""

    layers: str
    visibility: str  # "public" | "private"
    reason: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Shared:
    """A tensor that the client gives into MPC, as shares or (`public`) open to all parties."""

    name: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    public: bool


@dataclass(frozen=True)
class Role:
    """`shared_bytes` go into MPC as ring elements; `weight_bytes` of public weights are held (None: not here)."""

    operations: int
    shared_bytes: int
    weight_bytes: int | None
    learns: tuple[str, ...]


def inspection(program: Program, network: str | Path | Network | None = None) -> dict[str, object]:
    """All of it, ready for JSON; `network` as in `Program.cost`."""
    bundle, manifest = program.bundle, program.bundle.manifest
    cost, found = program.cost(network), extraction(bundle)
    summed = {
        f"by_{key}": [_row(key, r) for r in program.cost(network, by=key).rows]
        for key in ("layer", "operation", "primitive")
    }
    return {
        "mpcc": manifest.mpcc,
        "architecture": manifest.architecture,
        "protocol": manifest.protocol,
        "security": PROTOCOLS[manifest.protocol].security,
        "truncation": manifest.truncation,
        "profile": manifest.profile,
        "local_truncations": manifest.local_truncations,
        "failure_probability": manifest.failure_probability,
        "ring_bits": manifest.ring_bits,
        "frac_bits": manifest.frac_bits,
        "parameters": {
            "public": _amount(manifest.evidence, "public"),
            "private": _amount(manifest.evidence, "provider"),
            "groups": [asdict(g) for g in groups(manifest.evidence)],
            "evidence": [asdict(e) | {"visibility": _word(e.visibility)} for e in manifest.evidence],
        },
        "numbers": [asdict(n) for n in manifest.numbers],
        "operations": operations(program),
        "roles": {who: asdict(role) for who, role in roles(program).items()},
        "shared": [asdict(t) for t in shared_tensors(bundle.ring)],
        "inputs": [asdict(i) for i in manifest.inputs],
        "outputs": [asdict(o) for o in manifest.outputs],
        "extraction": vars(found) | {"answers": found.answers},
        "labels": {str(k): v for k, v in manifest.labels.items()},
        "cost": cost.to_json() | summed,
        "approximations": [asdict(a) for a in manifest.approximations],
        "low_rank": [asdict(r) for r in manifest.low_rank],
        "alternatives": [asdict(a) for a in manifest.alternatives],
        "savings": [asdict(s) for s in manifest.savings],
        "source": {"lines": bundle.source.count("\n"), "bytes": len(bundle.source.encode())},
    }


def _row(key: str, row: Row) -> dict[str, object]:
    return {
        key: getattr(row, key),
        "count": row.count,
        "elements": row.elements,
        "bytes": row.bytes,
        "rounds": max(row.rounds_by_party, default=0),
    }


# ** evidence **
def _word(visibility: str) -> str:
    return "public" if visibility == "public" else "private"


def _amount(evidence: Iterable[Evidence], visibility: str) -> dict[str, int]:
    chosen = [e for e in evidence if e.visibility == visibility]
    return {"tensors": len(chosen), "bytes": sum(e.bytes for e in chosen)}


def groups(evidence: Iterable[Evidence]) -> list[Group]:
    """Evidence by layer and reason, equal neighbouring layers together (`encoder.layer.{0..3}`)."""
    single: dict[tuple[str, str, str], list[Evidence]] = {}
    for e in evidence:
        single.setdefault((_layer(e.tensor), _word(e.visibility), _reason(e.reason)), []).append(e)
    result: list[Group] = []
    for (layer, visibility, reason), members in single.items():
        group = Group(layer, visibility, reason, len(members), sum(e.bytes for e in members))
        last = next((i for i in range(len(result) - 1, -1, -1) if _follows(result[i], group)), None)
        if last is None:
            result.append(group)
        else:
            before = result[last]
            result[last] = Group(
                _range(before.layers, layer),
                visibility,
                reason,
                before.tensors + group.tensors,
                before.bytes + group.bytes,
            )
    return result


def _reason(reason: str) -> str:
    """Without the name of the tensor, which differs from tensor to tensor."""
    match = _OF_BASE.match(reason)
    return f"{match[1]} the base {match[2]}" if match else reason


def _layer(tensor: str) -> str:
    parts = tensor.split(".")
    for i, part in enumerate(parts):
        if part.isdigit() and i:
            return ".".join(parts[: i + 1])
    return ".".join(parts[: 2 if len(parts) > 2 else 1])


def _follows(before: Group, after: Group) -> bool:
    if (before.visibility, before.reason) != (after.visibility, after.reason):
        return False
    stem, _, number = after.layers.rpartition(".")
    first = re.fullmatch(re.escape(stem) + r"\.(?:([0-9]{1,9})|\{[0-9]+\.\.([0-9]{1,9})\})", before.layers)
    return bool(stem and _LAYER.fullmatch(number) and first and int(first[1] or first[2]) + 1 == int(number))


def _range(before: str, after: str) -> str:
    stem, _, number = after.rpartition(".")
    first = re.search(r"(\d+)(?:\.\.\d+\})?$", before)
    return f"{stem}.{{{first[1] if first else '?'}..{number}}}"


# ** roles **
def operations(program: Program) -> dict[str, int]:
    """How many operations of the graph are computed where; "public" ones when the program is compiled."""
    counts = dict.fromkeys(SITES.values(), 0)
    for node in program.bundle.graph.operations():
        counts[SITES.get(node.site, "mpc")] += 1
    return counts


def roles(program: Program) -> dict[str, Role]:
    """What each role computes, shares, holds and learns."""
    bundle, manifest = program.bundle, program.bundle.manifest
    counts, element = operations(program), manifest.ring_bits // 8
    weights = sum(a.nbytes for a in bundle.client.tensors.values()) if bundle.client is not None else None
    everybody = ["the architecture and every shape", "the public weights", "which tensors are private", "the program"]
    everybody += [f"the input {s.name}, which was declared public" for s in manifest.inputs if s.role == "public"]
    shared = sum(t.bytes for t in shared_tensors(bundle.ring))
    private = sum(p.elements for p in manifest.private_weights) * element
    return {
        "client": Role(counts["client"], shared, weights, tuple(_told(o, manifest) for o in manifest.outputs)),
        "provider": Role(counts["provider"], private, None, _provider_learns(manifest)),
        **{role: Role(0, 0, 0, ("nothing",)) for role in protocol_of(manifest.protocol).roles[2:]},
        "everybody": Role(counts["public"], 0, None, tuple(everybody)),
    }


def _told(output: OutputSpec, manifest: Manifest) -> str:
    """An output, and how little of it."""
    if output.clear:
        return f"the output {output.name}"
    if output.name == LABEL and output.whole:
        return "the label: which logit is the largest, and no logit"
    rounded = manifest.output_frac_bits is not None
    return f"the output {output.name}" + (f", rounded to multiples of 2^-{output.frac_bits}" if rounded else "")


def _provider_learns(manifest: Manifest) -> tuple[str, ...]:
    public = [s.name for s in manifest.inputs if s.role == "public"]
    return (f"of the input: {', '.join(public)}, which was declared public" if public else "nothing about the input",)


def shared_tensors(ring: RingGraph) -> list[Shared]:
    """The tensors that the client gives into MPC."""
    return [
        Shared(n.str_attr("name"), n.type.shape, n.type.elements, n.type.elements * ring.ring_bits // 8, n.type.public)
        for n in ring
        if n.op == "input"
    ]


# ** the choice **
def sentence(alternatives: Sequence[Alternative], network: str) -> str:
    """Why the program is what it is, in one plain sentence; empty where there was nothing to choose."""
    taken = [a for a in alternatives if a.chosen]
    if not taken:
        return ""
    last, first = taken[-1], alternatives[0]
    forms = ", ".join(a.name for a in taken)
    if last is first:
        return f"On {network} no alternative is faster than the form of fewest bytes."
    return (
        f"On {network} the program takes {last.seconds:.3g} s of network time instead of {first.seconds:.3g} s "
        f"({last.rounds - first.rounds:+d} rounds, {(last.bytes - first.bytes) / 1e6:+.2f} MB), with: {forms}."
    )
