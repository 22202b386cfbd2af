"""Compute only what is read: a slice moves in front of the operations whose result it is taken of.

Given                                                Result
    g = gelu(h)               [1, 64, 1536]              g = gelu(h[:, 0:1])       [1, 1, 1536]
    z = add(linear(g, W), r)  [1, 64, 384]               z = add(linear(g, W), r[:, 0:1])
    y = layer_norm(z, ...)    [1, 64, 384]               y = layer_norm(z, ...)    [1, 1, 384]
    c = slice(y; dim 1, 0:1)  [1, 1, 384]                (readers of c read y)

A classifier reads the first token of the last layer: of that layer the other tokens are needed as keys and values
only. A value is narrowed along the dimensions in which all its readers agree; what an operation's places depend on is
declared with the operation (`Op.follows`). Values computed are those that were computed before, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import Attr, attributes

Cut = tuple[int, int, int]  # start, stop, step
Part = Mapping[int, Cut]  # what is read of a value: dimension -> cut; a dimension that is not there is read whole


@dataclass
class _Narrowed:
    """The graph so far: `names` holds the node that stands for an old one, `parts` what of it that node computes."""

    builder: GraphBuilder
    parts: dict[str, Part] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def narrow_reads(graph: Graph) -> Graph:
    """Narrow what is computed to what is read. The graph has no repeats yet; outputs are read whole."""
    read, computed = _demands(graph)
    done = _Narrowed(GraphBuilder(n.name for n in graph.nodes))
    for node in graph.nodes:
        done.parts[node.name] = computed[node.name]
        if node.op == "slice":
            done.names[node.name] = _fetch(done, graph[node.inputs[0]], read[node.name][0], node.name)
            continue
        inputs = tuple(_fetch(done, graph[i], part) for i, part in zip(node.inputs, read[node.name], strict=True))
        done.names[node.name] = done.builder.keep(_rebuilt(done, node, inputs, computed[node.name]))
    return without_dead_nodes(done.builder.graph((k, done.names[n]) for k, n in graph.outputs))


def _demands(graph: Graph) -> tuple[dict[str, list[Part]], dict[str, Part]]:
    """(what each node reads of each of its inputs, what each node computes)."""
    requests: dict[str, list[Part]] = {name: [{}] for _, name in graph.outputs}
    read: dict[str, list[Part]] = {}
    computed: dict[str, Part] = {}
    for node in reversed(graph.nodes):
        part = _agreed(requests.get(node.name, []))
        computed[node.name], read[node.name] = _passed_on(graph, node, part)
        for name, piece in zip(node.inputs, read[node.name], strict=True):
            requests.setdefault(name, []).append(piece)
    return read, computed


def _agreed(requests: list[Part]) -> Part:
    """The cuts that all readers make."""
    if not requests:
        return {}
    return {d: c for d, c in requests[0].items() if all(other.get(d) == c for other in requests[1:])}


def _passed_on(graph: Graph, node: Node, part: Part) -> tuple[Part, list[Part]]:
    """What of `part` the node can be narrowed to, and what it then reads of its inputs."""
    inputs: list[dict[int, Cut]] = [{} for _ in node.inputs]
    if node.is_leaf or node.body is not None or node.op not in REGISTRY:
        return {}, list(inputs)
    types, attrs, kept = [graph[i].type for i in node.inputs], dict(node.attrs), {}
    for dim, cut in part.items():
        if node.op == "slice" and dim == node.attr("dim"):
            kept[dim] = cut
            continue
        sources = REGISTRY[node.op].follows(types, attrs, dim)
        if sources is None or any(s is not None and s in piece for s, piece in zip(sources, inputs, strict=True)):
            continue
        kept[dim] = cut
        for piece, source in zip(inputs, sources, strict=True):
            if source is not None:
                piece[source] = cut
    if node.op == "slice":
        ((dim, own),) = _own(node).items()
        inputs[0][dim] = _within(own, kept[dim]) if dim in kept else own
    return kept, list(inputs)


def _own(node: Node) -> dict[int, Cut]:
    """What a slice itself reads."""
    dim, start, stop, step = (int(node.attr(k)) for k in ("dim", "start", "stop", "step"))  # type: ignore[arg-type]
    return {dim: (start, stop, step)}


def _within(outer: Cut, inner: Cut) -> Cut:
    """`inner` of what `outer` reads."""
    places = range(*outer)[slice(*inner)]
    return (places.start, places[-1] + 1 if places else places.start, places.step)


def _fetch(done: _Narrowed, node: Node, part: Part, name: str = "") -> str:
    """The part of a value: its node, or slices of that where it computes more; the last of them may be named."""
    source, computed = done.names[node.name], done.parts[node.name]
    left = [(dim, cut) for dim, cut in part.items() if computed.get(dim) != cut]
    for i, (dim, (start, stop, step)) in enumerate(left):
        own = name if i == len(left) - 1 else ""
        attrs: dict[str, Attr] = {"dim": dim, "start": start, "stop": stop, "step": step}
        stem = own or f"{node.name}_read"
        source = done.builder.emit(stem, "slice", [source], attrs, origin=node.origin, replacing=own, reuse=True)
    return source


def _rebuilt(done: _Narrowed, node: Node, inputs: tuple[str, ...], part: Part) -> Node:
    """The node on narrowed inputs; a shape that it names is narrowed as well."""
    attrs = dict(node.attrs)
    shape = attrs.get("shape")
    if part and isinstance(shape, tuple):
        attrs["shape"] = tuple(len(range(*part[d])) if d in part else n for d, n in enumerate(shape))
    moved = replace(node, inputs=inputs, attrs=attributes(**attrs))
    if not part:
        return moved
    return replace(moved, type=REGISTRY[node.op].type([done.builder.type(i) for i in inputs], attrs))
