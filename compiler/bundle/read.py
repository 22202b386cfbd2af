"""A compiled program and its file form: `prog.mpc` and, beside it, `prog.mpcc/`.

    prog.mpc                        MP-SPDZ source; no weight, no name from the model
    prog.mpcc/manifest.json         what everybody may know, and the digest of every file but the provider's
              graph.ir  ring.ir     the program in both IRs; no calibrated range that is finer than a power of two
              mpc.ir                what is computed inside MPC, on the weights as they are provisioned (for `verify`)
              client/               graph.ir, weights.safetensors: what the client computes in clear; tokenizer.json
              provider/             weights.safetensors, manifest.json (its digest); for the provider's eyes only
              public/               weights.safetensors: public weights that the program uses inside MPC

A role needs only the shared files and its own folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mpcc.compiler.bundle.files import Staged, install, path_pair
from mpcc.compiler.bundle.manifest import (
    LowRank,
    Manifest,
    OutputSpec,
    Placed,
    from_text,
    input_specs,
    labels_in,
    placed_weights,
    to_text,
)
from mpcc.compiler.cost import network_of
from mpcc.compiler.driver.pipeline import Compiled
from mpcc.compiler.driver.savings import Saving
from mpcc.compiler.errors import BundleError, InternalError, MpccError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.numbers_in_code import numbers_in_code
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.text import parse_ring, print_ring
from mpcc.passes.graph.recover_lora import Recovered

ROLES = ("client", "provider")
MANIFEST, GRAPH, RING, MPC, WEIGHTS, TOKENIZER = (
    "manifest.json",
    "graph.ir",
    "ring.ir",
    "mpc.ir",
    "weights.safetensors",
    "tokenizer.json",
)
SOURCE_KEY = "source"  # the source's entry among the digests: it may be renamed together with its folder
Tensors = Mapping[str, torch.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class ClientPart:
    """What the client computes in clear before the run: its graph, the public weights in it, and its tokenizer."""

    graph: Graph
    tensors: Tensors
    tokenizer_json: str | None = None


@dataclass(frozen=True)
class Bundle:
    """A compiled program; `client` and `provider` are None where that role's folder is not here.

    `mpc` is the graph inside MPC, what `ring` approximates (None in bundles of older versions).
    """

    manifest: Manifest
    source: str
    graph: Graph
    ring: RingGraph
    public: Tensors
    client: ClientPart | None
    provider: Tensors | None
    mpc: Graph | None = None


# ** from the compiler **
def pack(model: Captured, compiled: Compiled, savings: Iterable[Saving] = ()) -> Bundle:
    """Split what was compiled by who may have it; `savings` is what each pass earned.

    Raises:
        MpccError: an output depends on nothing but the provider's weights.
    """
    layout, tensors = compiled.source.layout, compiled.tensors
    private, public = placed_weights(layout.private), placed_weights(layout.public)
    client = _client_graph(compiled)
    manifest = _manifest(model, compiled, private, public, savings)
    return Bundle(
        manifest,
        compiled.source.text,
        shareable(compiled.graph, compiled.regions.mpc),
        compiled.ring,
        {p.tensor: tensors[p.tensor] for p in public},
        ClientPart(shareable(client), {n: tensors[n] for n in _tensors_of(client)}, model.tokenizer_json),
        {p.tensor: tensors[p.tensor] for p in private},
        shareable(compiled.regions.mpc),
    )


def _manifest(
    model: Captured,
    compiled: Compiled,
    private: tuple[Placed, ...],
    public: tuple[Placed, ...],
    savings: Iterable[Saving],
) -> Manifest:
    options, settings = compiled.options, compiled.settings
    return Manifest(
        mpcc=metadata.version("mpcc"),
        protocol=options.protocol,
        network=network_of(options.network),
        ring_bits=compiled.ring.ring_bits,
        frac_bits=settings.frac_bits,
        weight_frac_bits=settings.weight_frac_bits,
        truncation=options.truncation,
        output=options.output,
        architecture=model.architecture,
        inputs=input_specs(model, options.public_inputs),
        outputs=_outputs(compiled),
        client_order=compiled.source.inputs,
        private_weights=private,
        public_weights=public,
        evidence=compiled.evidence,
        approximations=compiled.used,
        labels=labels_in(model),
        profile=options.profile,
        local_truncations=compiled.truncations.local_elements if compiled.truncations else 0,
        failure_probability=_power_of_two(compiled.truncations.failure_probability if compiled.truncations else 0.0),
        low_rank=tuple(_low_rank(r) for r in compiled.low_rank),
        alternatives=compiled.alternatives,
        savings=tuple(savings),
        numbers=numbers_in_code(model.graph, model.tensors),
    )


def _power_of_two(value: float) -> float:
    """The next power of two that is no smaller: all digits of a figure that depends on private weights are a
    fingerprint of them.
    """
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 0.0


def _low_rank(found: Recovered) -> LowRank:
    errors = map(_power_of_two, (found.error, found.error_of_weight))
    return LowRank(found.tensor, found.rank, found.full_rank, *errors)


def _outputs(compiled: Compiled) -> tuple[OutputSpec, ...]:
    revealed = {n.str_attr("name"): n.type for n in compiled.ring if n.op == "reveal"}
    return tuple(
        OutputSpec(name, revealed[name].shape, revealed[name].frac_bits)
        if name in revealed
        else OutputSpec(name, compiled.graph[node].type.shape, 0, clear=True)
        for name, node in compiled.graph.outputs
    )


def _client_graph(compiled: Compiled) -> Graph:
    """Inputs -> tensors that the client shares, by node, and the outputs that it computes alone, by their name."""
    graph, client = compiled.graph, compiled.regions.client
    revealed = {name for name, _ in compiled.regions.mpc.outputs}
    clear = tuple((name, node) for name, node in graph.outputs if name not in revealed)
    for name, node in clear:
        if graph[node].visibility not in ("public", "client"):
            raise MpccError(
                f"the output {name} depends on no input, only on the provider's weights", todo="choose another"
            )
    if not clear:
        return client
    return _joined(client, without_dead_nodes(Graph(graph.nodes, clear)))


def _joined(client: Graph, alone: Graph) -> Graph:
    """Both graphs in one. Rewriting may have given a name of `alone` another meaning in `client`: nodes are shared only
    where they and all that they read are equal.
    """
    name_in: dict[str, str] = {}
    extra: list[Node] = []
    for node in alone:
        moved = replace(node, inputs=tuple(name_in[i] for i in node.inputs))
        if node.name in client and _meaning(client[node.name]) == _meaning(moved):
            name_in[node.name] = node.name
            continue
        name_in[node.name] = node.name if node.op == "input" else f"clear.{node.name}"
        extra.append(replace(moved, name=name_in[node.name]))
    outputs = tuple((name, name_in[node]) for name, node in alone.outputs)
    return Graph((*client.nodes, *extra), (*client.outputs, *outputs))


def _meaning(node: Node) -> tuple[object, ...]:
    return node.op, node.inputs, node.attrs


def _tensors_of(graph: Graph) -> list[str]:
    return list(dict.fromkeys(str(n.attr("tensor")) for n in graph if n.op in ("param", "constant")))


def shareable(graph: Graph, mpc: Graph | None = None) -> Graph:
    """Without ranges and statistics, which private weights had a part in; sites as the cut (`mpc`) left them."""
    inside = {n.name for n in mpc if not n.is_leaf} if mpc is not None else set()
    return graph.with_nodes(
        [replace(n, range=None, stats=(), site="mpc" if n.name in inside else n.site) for n in graph]
    )


# ** to files **
def save(bundle: Bundle, path: str | Path) -> None:
    """Write `prog.mpc` and `prog.mpcc/`: both or neither, and what was there before stays until both are complete.

    Raises:
        BundleError: the name, the folder or the space there is do not allow it.
        MpccError: parts of the program are missing, since it was loaded for one role only.
    """
    if bundle.client is None or bundle.provider is None:
        raise BundleError("a program that was loaded for one role cannot be saved", todo="copy its files instead")
    client = bundle.client
    shared: list[Staged] = [
        Staged(GRAPH, text=print_graph(bundle.graph)),
        Staged(RING, text=print_ring(bundle.ring)),
        Staged(f"client/{GRAPH}", text=print_graph(client.graph)),
        Staged(f"client/{WEIGHTS}", tensors=client.tensors),
        Staged(f"public/{WEIGHTS}", tensors=bundle.public),
    ]
    if client.tokenizer_json is not None:
        shared.append(Staged(f"client/{TOKENIZER}", text=client.tokenizer_json))
    if bundle.mpc is not None:
        shared.append(Staged(MPC, text=print_graph(bundle.mpc)))
    secret = [Staged(f"provider/{WEIGHTS}", tensors=bundle.provider, secret=True)]

    def closing(root: Path) -> list[Staged]:
        digests = {SOURCE_KEY: hashlib.sha256(bundle.source.encode()).hexdigest()}
        digests |= {s.name: digest_of(root / s.name) for s in shared}
        own = {s.name.partition("/")[2]: digest_of(root / s.name) for s in secret}
        return [
            Staged(f"provider/{MANIFEST}", text=json.dumps({"digests": own}, indent=1) + "\n", secret=True),
            Staged(MANIFEST, text=to_text(bundle.manifest, digests)),
        ]

    install(path, bundle.source, [*shared, *secret], closing)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ** from files **
def load(path: str | Path, roles: Iterable[str] | None = None) -> Bundle:
    """Read a program, as much as `roles` need; by default everything that is there.

    Raises:
        BundleError: a file is missing, changed or of an unknown version; the message names it.
    """
    source_path, folder = path_pair(path)
    if not source_path.exists() and not folder.exists():
        raise BundleError("no such program", where=str(source_path))
    manifest, digests = from_text(_read(folder, MANIFEST), f"{folder.name}/{MANIFEST}")
    wanted = set(roles) if roles is not None else {r for r in ROLES if (folder / r).is_dir()}
    if unknown := sorted(wanted - set(ROLES)):
        raise BundleError(f"there is no role {unknown[0]!r}", todo=f"roles: {', '.join(ROLES)}")
    reader = _Reader(folder, digests)
    source = _source(source_path, digests)
    public = reader.tensors(f"public/{WEIGHTS}")
    _check_weights(manifest.public_weights, public, "public")
    client = _load_client(reader) if "client" in wanted else None
    provider = _load_provider(reader, manifest) if "provider" in wanted else None
    graph, ring = reader.parsed(GRAPH, parse_graph), reader.parsed(RING, parse_ring)
    mpc = reader.parsed(MPC, parse_graph) if MPC in digests else None
    return Bundle(manifest, source, graph, ring, public, client, provider, mpc)


def _load_client(reader: _Reader) -> ClientPart:
    name = f"client/{TOKENIZER}"
    tokenizer = reader.text(name) if name in reader.digests else None
    return ClientPart(reader.parsed(f"client/{GRAPH}", parse_graph), reader.tensors(f"client/{WEIGHTS}"), tokenizer)


def _load_provider(reader: _Reader, manifest: Manifest) -> Tensors:
    own = f"provider/{MANIFEST}"
    try:
        digests = {f"provider/{k}": str(v) for k, v in json.loads(_read(reader.folder, own))["digests"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _corrupt(f"{reader.folder.name}/{own}") from None
    tensors = _Reader(reader.folder, digests).tensors(f"provider/{WEIGHTS}")
    _check_weights(manifest.private_weights, tensors, "provider")
    return tensors


def _check_weights(placed: tuple[Placed, ...], tensors: Tensors, role: str) -> None:
    for p in placed:
        if p.tensor not in tensors or tensors[p.tensor].numel() != p.elements:
            raise BundleError(f"{role}/{WEIGHTS} does not hold the weights of this program", todo="compile again")


def _source(path: Path, digests: Mapping[str, str]) -> str:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the program: {error.strerror}", where=str(path)) from None
    if hashlib.sha256(text).hexdigest() != digests.get(SOURCE_KEY):
        raise BundleError(
            "the source was changed after it was compiled: its digest is not the manifest's",
            where=str(path),
            todo="compile again",
        )
    return text.decode("utf-8")


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text("utf-8")
    except UnicodeDecodeError:
        raise _corrupt(f"{folder.name}/{name}") from None
    except OSError as error:
        raise _unreadable(folder, name, error) from None


def _unreadable(folder: Path, name: str, error: OSError) -> BundleError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return BundleError(f"the bundle has no {name}", where=str(folder), todo="copy it again, or compile again")
    return BundleError(f"cannot read {name}: {error.strerror}", where=str(folder))


def _corrupt(where: str) -> BundleError:
    return BundleError("the file is corrupt", where=where, todo="copy it again, or compile again")


@dataclass(frozen=True)
class _Reader:
    """Reads files of a bundle after checking their digests."""

    folder: Path
    digests: Mapping[str, str]

    def checked(self, name: str) -> Path:
        path = self.folder / name
        try:
            digest = digest_of(path)
        except OSError as error:
            raise _unreadable(self.folder, name, error) from None
        if digest != self.digests.get(name):
            raise BundleError(
                f"{name} is corrupt: its digest is not the manifest's",
                where=str(self.folder),
                todo="copy it again, or compile again",
            )
        return path

    def text(self, name: str) -> str:
        return self.checked(name).read_text("utf-8")

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.text(name))
        except (InternalError, ValueError):
            raise _corrupt(f"{self.folder.name}/{name}") from None

    def tensors(self, name: str) -> Tensors:
        try:
            return load_file(self.checked(name))
        except SafetensorError:
            raise _corrupt(f"{self.folder.name}/{name}") from None
