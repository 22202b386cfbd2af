"""What a bundle says about itself: `manifest.json`, which every role may read.

It holds shapes, names, evidence and digests, never the value of a weight or a digest of private ones: a digest of a
secret would let others test their guesses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mpcc.backends.mp_spdz.weights import Region
from mpcc.compiler.cost import Network, network_from
from mpcc.compiler.driver.choose import Alternative
from mpcc.compiler.driver.savings import Saving
from mpcc.compiler.errors import BundleError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.numbers_in_code import PublicNumber
from mpcc.compiler.frontend.partition import Evidence
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.lowering.used_forms import UsedForm

FORMAT, FORMAT_VERSION = "mpcc-bundle", 1
MASK_INPUT, IDS_INPUT, TYPES_INPUT = "attention_mask", "input_ids", "token_type_ids"
_TRANSPARENT = frozenset({"reshape", "permute", "expand", "slice", "concat", "cast"})


@dataclass(frozen=True)
class InputSpec:
    """An input of the program: `highest` is the largest valid id where a table look-up tells it, `pad` fills up ids."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = "client"
    highest: int | None = None
    pad: int = 0


@dataclass(frozen=True)
class OutputSpec:
    """An output: computed in MPC and revealed to the client, or (`clear`, `frac_bits` 0) by the client itself."""

    name: str
    shape: tuple[int, ...]
    frac_bits: int
    clear: bool = False


@dataclass(frozen=True)
class Placed:
    """A weight in the stream of its owner: `elements` ring elements from `position` on."""

    tensor: str
    frac_bits: int
    position: int
    elements: int


@dataclass(frozen=True)
class LowRank:
    """A private weight that stands as the base's and an adapter: errors are shares, rounded up to powers of two."""

    tensor: str
    rank: int
    full_rank: int
    error_of_update: float
    error_of_weight: float


@dataclass(frozen=True)
class Manifest:
    """Everything about a program that is public; see the fields' names."""

    mpcc: str
    protocol: str
    network: Network  # what it was compiled for
    ring_bits: int
    frac_bits: int
    weight_frac_bits: int
    truncation: str
    output: str
    architecture: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    client_order: tuple[str, ...]
    private_weights: tuple[Placed, ...]
    public_weights: tuple[Placed, ...]
    evidence: tuple[Evidence, ...]
    approximations: tuple[UsedForm, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    profile: str = "safe"
    local_truncations: int = 0  # elements per inference
    failure_probability: float = 0.0  # of all local truncations of an inference together, a power of two
    low_rank: tuple[LowRank, ...] = ()
    alternatives: tuple[Alternative, ...] = ()  # forms of the program that were considered; empty in old bundles
    savings: tuple[Saving, ...] = ()  # what each pass saves; empty unless asked for
    numbers: tuple[PublicNumber, ...] = ()  # in the code of the model

    @property
    def private_elements(self) -> int:
        """Ring elements of the provider's stream."""
        return _end(self.private_weights)

    @property
    def public_elements(self) -> int:
        """Ring elements of the stream of public weights."""
        return _end(self.public_weights)


def _end(placed: Iterable[Placed]) -> int:
    return max((p.position + p.elements for p in placed), default=0)


# ** what a captured model tells about its inputs **
def input_specs(model: Captured, public_inputs: Iterable[str] = ()) -> tuple[InputSpec, ...]:
    """The inputs of a captured model, with the limits that its look-up tables imply."""
    public = set(public_inputs)
    limits = _limits(model.graph)
    pad = (model.config or {}).get("pad_token_id")
    padding = pad if isinstance(pad, int) and pad >= 0 else 0
    return tuple(
        InputSpec(
            n.name,
            n.type.shape,
            n.type.dtype,
            "public" if n.name in public else "client",
            limits.get(n.name),
            padding if n.name == IDS_INPUT else 0,
        )
        for n in model.graph
        if n.op == "input"
    )


def _limits(graph: Graph) -> dict[str, int]:
    """Input -> largest id that is a row of every table it is looked up in."""
    result: dict[str, int] = {}
    for node in graph:
        if node.op != "embedding":
            continue
        highest = graph[node.inputs[0]].type.shape[0] - 1
        for name in _sources(graph, node.inputs[1]):
            result[name] = min(highest, result.get(name, highest))
    return result


def _sources(graph: Graph, name: str) -> list[str]:
    """The inputs whose elements arrive at `name` unchanged."""
    node = graph[name]
    if node.op == "input":
        return [name]
    return [s for i in node.inputs for s in _sources(graph, i)] if node.op in _TRANSPARENT else []


def labels_in(model: Captured) -> dict[int, str]:
    """id -> label from the model's config; empty without one."""
    table = (model.config or {}).get("id2label")
    if not isinstance(table, Mapping):
        return {}
    return {int(k): str(v) for k, v in table.items() if str(k).isdigit()}


def placed_weights(region: Region) -> tuple[Placed, ...]:
    """Where every tensor of a region stands, by rising position."""
    placed = [
        Placed(tensor, slot.frac_bits, slot.base + i * slot.block, slot.elements)
        for slot in region.slots.values()
        for i, tensor in enumerate(slot.tensors)
    ]
    return tuple(sorted(placed, key=lambda p: p.position))


# ** JSON **
def to_text(manifest: Manifest, digests: Mapping[str, str]) -> str:
    """manifest.json; `digests` are SHA-256 by file, none of them of private data."""
    table = {"format": FORMAT, "version": FORMAT_VERSION} | asdict(manifest) | {"digests": dict(digests)}
    return json.dumps(table, indent=1) + "\n"


def from_text(text: str, where: str) -> tuple[Manifest, dict[str, str]]:
    """The manifest and the digests.

    Raises:
        BundleError: not a manifest, or one of another format version.
    """
    try:
        table = json.loads(text)
    except ValueError:
        raise BundleError("the manifest is corrupt: it is not JSON", where=where, todo="compile again") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise BundleError("the manifest is not one of an mpcc bundle", where=where)
    if table.get("version") != FORMAT_VERSION:
        found = str(table.get("version"))[:20]
        raise BundleError(
            f"the bundle has format version {found}, this mpcc reads {FORMAT_VERSION}",
            where=where,
            todo="compile again with this mpcc, or run it with the one that made it",
        )
    try:
        digests = {str(k): str(v) for k, v in table["digests"].items()}
        return _parsed(table), digests
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BundleError("the manifest is corrupt: fields are missing", where=where, todo="compile again") from None


def _parsed(table: Mapping[str, Any]) -> Manifest:
    known = {f.name for f in fields(Manifest)}
    values: dict[str, Any] = {k: v for k, v in table.items() if k in known}
    parts: dict[str, type[Any]] = {
        "inputs": InputSpec,
        "outputs": OutputSpec,
        "private_weights": Placed,
        "public_weights": Placed,
        "evidence": Evidence,
        "approximations": UsedForm,
    }
    for key, cls in parts.items():
        values[key] = tuple(cls(**_shaped(entry)) for entry in table[key])
    # not in the first bundles
    later: dict[str, type[Any]] = {"low_rank": LowRank, "alternatives": Alternative, "savings": Saving}
    later["numbers"] = PublicNumber
    for key, cls in later.items():
        values[key] = tuple(cls(**entry) for entry in table.get(key, ()))
    values["network"] = network_from(table["network"])
    values["client_order"] = tuple(str(n) for n in table["client_order"])
    values["labels"] = {int(k): str(v) for k, v in table["labels"].items()}
    return Manifest(**values)


def _shaped(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if k == "shape" else v for k, v in entry.items()}
