"""Whether the parts of a bundle belong together: what two of them say of one thing has to be the same."""

from __future__ import annotations

from collections.abc import Sequence

from mpcc.backends.mp_spdz.weights import Region, layout_weights
from mpcc.compiler.bundle.contents import GRAPH, MANIFEST, MPC, RING, WEIGHTS, Arrays, Bundle, ClientPart
from mpcc.compiler.bundle.limits import MOST_COPIES, REFUSE, check_graph_size, check_ring_size
from mpcc.compiler.bundle.manifest import COPY_AGAIN, Manifest, Placed, end_of
from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.protocols import PROTOCOLS
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.types import TensorType

_ROLES = ("client", "public")
RECEIVER = "client"  # of every output
_NUMPY = {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "bool": "bool"}


def check_bundle(bundle: Bundle, name: str) -> None:
    """All parts but the client's against the manifest and the ring program. `name` is the folder's.

    Raises:
        BundleError: the first thing that does not agree.
    """
    manifest, where = bundle.manifest, f"{name}/{MANIFEST}"
    _check_choices(manifest, where)
    for file, graph in ((GRAPH, bundle.graph), (MPC, bundle.mpc)):
        check_graph_size(graph, f"{name}/{file}")
        _check_labels(graph, f"{name}/{file}")
    if not manifest.reduced:
        _check_inputs(manifest, bundle.graph, where)
    check_ring_size(bundle.ring, f"{name}/{RING}")
    _check_ring(manifest, bundle.ring, where)
    check_weights(manifest.public_weights, bundle.public, f"{name}/public/{WEIGHTS}")
    _check_copies(manifest.public_weights, bundle.public, f"{name}/public/{WEIGHTS}")
    if bundle.provider is not None:
        _check_copies(manifest.private_weights, bundle.provider, f"{name}/provider/{WEIGHTS}")
    given = {name for name, node in bundle.graph.outputs if bundle.graph[node].op != "keep"}
    _agree(given == {o.name for o in manifest.outputs}, "the outputs", GRAPH, where)
    known = {p.tensor for p in (*manifest.private_weights, *manifest.public_weights)}
    _agree(_tensors_of(bundle.mpc) <= known, "the weights", MPC, where)
    shared = {n.name: n.attr("role") for n in bundle.mpc if n.op == "input"}
    roles = {n.str_attr("name"): n.str_attr("role") for n in bundle.ring if n.op == "input"}
    _agree(roles.keys() <= shared.keys(), "what is shared", MPC, where)
    _agree(all(shared[name] == role for name, role in roles.items()), "who may read what is shared", MPC, where)
    if bundle.client is not None:
        _check_public(bundle.client.graph, {n for n, role in roles.items() if role == "public"}, manifest, where)


def check_client(part: ClientPart, manifest: Manifest, name: str) -> None:
    """The client's graph against its weights and the manifest. BundleError as above."""
    where = f"{name}/client/{GRAPH}"
    check_graph_size(part.graph, where)
    _check_labels(part.graph, where)
    _check_inputs(manifest, part.graph, where)
    for node in part.graph:
        if node.op not in ("param", "constant"):
            continue
        array = part.tensors.get(str(node.attr("tensor")))
        if array is None or array.shape != node.type.shape or array.dtype != _NUMPY[node.type.dtype]:
            raise BundleError(
                f"client/{WEIGHTS} does not hold the weights of the client's graph", where=where, todo=COPY_AGAIN
            )
    given = {n for n, _ in part.graph.outputs}
    wanted = {*manifest.client_order, *(o.name for o in manifest.outputs if o.clear)}
    _agree(wanted <= given, "what the client computes", f"client/{GRAPH}", f"{name}/{MANIFEST}")


def _check_public(graph: Graph, shared: set[str], manifest: Manifest, where: str) -> None:
    """What everybody may read depends on inputs alone that the manifest, which the client looks at, calls public."""
    public = {i.name for i in manifest.inputs if i.role == "public"}
    reads: dict[str, frozenset[str]] = {}
    for node in graph:
        own = frozenset({node.name}) if node.op == "input" else frozenset()
        reads[node.name] = own.union(*(reads[name] for name in node.inputs))
    for name, source in graph.outputs:
        if name in shared and (hidden := sorted(reads[source] - public)):
            raise BundleError(f"{name} would tell everybody of the secret input {hidden[0]}", where=where, todo=REFUSE)


def check_weights(placed: Sequence[Placed], arrays: Arrays, where: str) -> None:
    """Whether there is a tensor of the right size for every place. BundleError as above."""
    for p in placed:
        if p.tensor not in arrays or arrays[p.tensor].size != p.elements:
            raise BundleError("the file does not hold the weights of this program", where=where, todo=COPY_AGAIN)


def _check_copies(placed: Sequence[Placed], arrays: Arrays, where: str) -> None:
    """A small file may not become a stream that is larger than all memory."""
    if end_of(placed) > MOST_COPIES * sum(array.size for array in arrays.values()):
        raise BundleError("the program reads the same weights too often", where=where, todo=REFUSE)


def placed_weights(region: Region) -> tuple[Placed, ...]:
    """Where every tensor of a region stands, by rising position."""
    placed = [
        Placed(tensor, slot.frac_bits, slot.base + i * slot.block, slot.elements)
        for slot in region.slots.values()
        for i, tensor in enumerate(slot.tensors)
    ]
    return tuple(sorted(placed, key=lambda p: p.position))


# ** the manifest **
def _check_choices(manifest: Manifest, where: str) -> None:
    """Numbers and words with a meaning of their own."""
    network = manifest.network
    rules = {
        "protocol": manifest.protocol in PROTOCOLS,
        "network": network.bandwidth > 0 and network.round_trip >= 0,
        "truncation": manifest.truncation in ("probabilistic", "nearest"),
        "inputs": all(
            i.role in _ROLES and i.pad >= 0 and (i.highest is None or i.highest >= 0) for i in manifest.inputs
        ),
        "outputs": len({o.name for o in manifest.outputs}) == len(manifest.outputs),
        "evidence": all(e.visibility in ("public", "provider") and e.bytes >= 0 for e in manifest.evidence),
        "local_truncations": manifest.local_truncations >= 0,
        "failure_probability": (manifest.failure_probability > 0) == (manifest.local_truncations > 0),
    }
    for key, holds in rules.items():
        if not holds:
            raise BundleError(f"the manifest is corrupt: {key} is not one there can be", where=where, todo=COPY_AGAIN)


def _check_inputs(manifest: Manifest, graph: Graph, where: str) -> None:
    inputs = {n.name: n.type for n in graph if n.op == "input"}
    said = {i.name: TensorType(i.shape, i.dtype) for i in manifest.inputs}
    _agree(inputs == said and len(said) == len(manifest.inputs), "the inputs", GRAPH, where)


def _check_ring(manifest: Manifest, ring: RingGraph, where: str) -> None:
    layout = layout_weights(ring)
    leaving = {n.str_attr("name"): n.name for n in ring if n.op == "reveal"}
    leaving |= {n.str_attr("state"): n.name for n in ring if n.op == "store_state"}
    _agree(leaving == dict(ring.outputs), "what is opened", RING, where)
    revealed = {n.str_attr("name"): (n.type.shape, n.type.frac_bits) for n in ring if n.op == "reveal"}
    said = {o.name: (o.shape, o.frac_bits) for o in manifest.outputs if not o.clear}
    names = [n.str_attr("name") for n in ring if n.op == "input"]
    _check_owners(ring, where)
    _agree(manifest.ring_bits == ring.ring_bits, "the ring", RING, where)
    _agree(revealed == said, "the outputs", RING, where)
    _agree(sorted(names) == list(manifest.client_order), "what is shared", RING, where)
    _agree(placed_weights(layout.private) == manifest.private_weights, "the private weights", RING, where)
    _agree(placed_weights(layout.public) == manifest.public_weights, "the public weights", RING, where)


def _check_owners(ring: RingGraph, where: str) -> None:
    """Every input is the client's or known to all, every output is opened to the client alone."""
    for node in ring:
        if node.op == "reveal" and node.str_attr("to") != RECEIVER:
            raise BundleError(f"an output is opened to {node.str_attr('to')[:40]!r}", where=where, todo=REFUSE)
        if node.op == "input" and node.str_attr("role") not in _ROLES:
            raise BundleError(f"an input is shared by {node.str_attr('role')[:40]!r}", where=where, todo=REFUSE)


# ** graphs **
def _check_labels(graph: Graph, where: str) -> None:
    """Every node says who may read it and where it is computed; whether it says so rightly is checked with PyTorch."""
    for node in graph:
        if not node.visibility or not node.site:
            raise BundleError(f"{node.name[:60]} has no visibility or no site", where=where, todo=COPY_AGAIN)


def _tensors_of(graph: Graph) -> set[str]:
    return {str(n.attr("tensor")) for n in graph if n.op in ("param", "constant")}


def _agree(holds: bool, what: str, file: str, where: str) -> None:
    if not holds:
        raise BundleError(f"{what} of the manifest and of {file} differ", where=where, todo=COPY_AGAIN)
