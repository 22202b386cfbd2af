"""One token of each input of a batch, found by its place, is all that is computed of what only it is read of.

Given                                              Result
    z = add(linear(h, W), r)    [B, S, d]              z = add(linear(pick(h, i), W), pick(r, i))  [B, 1, d]
    s = linear(z, V)            [B, S, c]              s = linear(z, V)                             [B, 1, c]
    y = index(s, [0 .. B-1, i]) [B, c]                 y = reshape(s)                               [B, c]

A classifier on a decoder reads the last token that is no padding, and only the client knows which. The place stays
its secret: what is left of `pick` inside MPC becomes a product with a one-hot row (private_embedding.py). As in
narrow_reads.py the pick moves in front of the operations whose result it is taken of, up to where something else reads
the value; masks and rotary tables are picked by who knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import Attr, attributes
from mpcc.passes.graph.rewriting import Rewriter, rewrite

Picked = tuple[str, int]  # the places, and the dimension along which they are taken
INDEX = "aten.index.Tensor"


def pick_rows(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Rewrite `x[arange, places]`, and compute of other values what is picked. Reads only constants of `tensors`."""
    found = without_dead_nodes(rewrite(graph, tensors, {INDEX: (_pick,)}))
    return without_dead_nodes(_moved(found)) if any(n.op == "pick" for n in found) else found


def _pick(rw: Rewriter, node: Node) -> str | None:
    """x [B, n, ..] indexed by 0 .. B-1 and by one place for each."""
    listed = node.attr("indices")
    x = rw.type(node.inputs[0])
    if node.attr("self") != ("tensor", 0) or not isinstance(listed, tuple) or len(listed) != 2 or len(x.shape) < 2:
        return None
    rows, places = (node.inputs[e[1]] if isinstance(e, tuple) and isinstance(e[1], int) else "" for e in listed)
    counted = rw.constant(rows) if rows else None
    if counted is None or not places or not torch.equal(counted, torch.arange(x.shape[0]).to(counted)):
        return None
    if rw.type(places).dtype not in ("i32", "i64") or rw.type(places).shape not in ((x.shape[0],), ()):
        return None
    wide = places
    if rw.type(places).shape == ():
        wide = rw.emit_beside("each", "expand", [places], shape=(x.shape[0],))
    counted_up: dict[str, Attr] = {"self": ("tensor", 0), "other": x.shape[1]}  # places may count from the end
    wide = rw.emit_beside("place", "aten.remainder.Scalar", [wide], **counted_up)
    one = rw.emit_beside("row", "pick", [node.inputs[0], wide], dim=1)
    return rw.emit("reshape", [one], shape=node.type.shape)


@dataclass
class _Moved:
    """The graph so far: `names` holds the node that stands for an old one, `parts` what of it that node computes."""

    graph: Graph
    parts: Mapping[str, Picked | None]
    builder: GraphBuilder
    names: dict[str, str] = field(default_factory=dict)


def _moved(graph: Graph) -> Graph:
    read, parts = _demands(graph)
    done = _Moved(graph, parts, GraphBuilder(n.name for n in graph.nodes))
    for node in _places_first(graph):
        if node.op == "pick":
            done.names[node.name] = _fetch(done, node.inputs[0], read[node.name][0], node.name)
            continue
        inputs = tuple(_fetch(done, i, p) for i, p in zip(node.inputs, read[node.name], strict=True))
        done.names[node.name] = done.builder.keep(_rebuilt(done, node, inputs, parts[node.name]))
    return done.builder.graph((k, done.names[n]) for k, n in graph.outputs)


def _places_first(graph: Graph) -> list[Node]:
    """The nodes in an order in which places are known before anything is picked."""
    early = {n.inputs[1] for n in graph if n.op == "pick"} | {n.name for n in graph if n.op == "input"}
    for node in reversed(graph.nodes):
        if node.name in early:
            early.update(node.inputs)
    return [n for n in graph if n.name in early] + [n for n in graph if n.name not in early]


def _demands(graph: Graph) -> tuple[dict[str, list[Picked | None]], dict[str, Picked | None]]:
    """(what each node reads of each of its inputs, what each node computes); None is all of it."""
    requests: dict[str, list[Picked | None]] = {name: [None] for _, name in graph.outputs}
    read: dict[str, list[Picked | None]] = {}
    computed: dict[str, Picked | None] = {}
    for node in reversed(graph.nodes):
        asked = requests.get(node.name, [])
        part = asked[0] if asked and all(a == asked[0] for a in asked) else None
        sources = None if part is None else _sources(graph, node, part)
        computed[node.name] = None if sources is None else part
        if node.op == "pick":
            read[node.name] = [(node.inputs[1], int(str(node.attr("dim")))), None]
        else:
            read[node.name] = [None] * len(node.inputs) if sources is None else sources
        for name, piece in zip(node.inputs, read[node.name], strict=True):
            requests.setdefault(name, []).append(piece)
    return read, computed


def _sources(graph: Graph, node: Node, part: Picked) -> list[Picked | None] | None:
    """What the picked places of a result are computed of, where an input of a batch follows none but its own."""
    if node.is_leaf or node.body is not None or node.op not in REGISTRY or node.op == "pick":
        return None
    op, types, attrs = REGISTRY[node.op], [graph[i].type for i in node.inputs], dict(node.attrs)
    places, dim = part
    batch, along = op.follows(types, attrs, 0), op.follows(types, attrs, dim)
    if batch is None or along is None:
        return None
    rank = len(node.type.shape)
    pieces: list[Picked | None] = []
    for type, first, source in zip(types, batch, along, strict=True):
        if source is None:
            pieces.append(None)
        elif (first == 0 and source > 0) or (
            first is None and source > 0 and len(type.shape) == rank and type.shape[0] == 1
        ):
            pieces.append((places, source))
        else:
            return None
    return pieces


def _fetch(done: _Moved, name: str, part: Picked | None, own: str = "") -> str:
    """The part of a value: its node, or a pick of that where it computes all of it."""
    source = done.names[name]
    if part is None or done.parts[name] is not None:
        return source
    places, dim = part
    node = done.graph[name]
    inputs, stem = [source, done.names[places]], own or f"{name}_row"
    return done.builder.emit(stem, "pick", inputs, {"dim": dim}, origin=node.origin, replacing=own, reuse=True)


def _rebuilt(done: _Moved, node: Node, inputs: tuple[str, ...], part: Picked | None) -> Node:
    """The node on picked inputs; a shape that it names becomes 1 there."""
    attrs = dict(node.attrs)
    shape = attrs.get("shape")
    if part is None:
        return replace(node, inputs=inputs)
    if isinstance(shape, tuple):
        attrs["shape"] = tuple(1 if d == part[1] else n for d, n in enumerate(shape))
    type = REGISTRY[node.op].type([done.builder.type(i) for i in inputs], attrs)
    return replace(node, inputs=inputs, attrs=attributes(**attrs), type=type)
