"""Heads that share keys and values read them once: what repeats them goes, and queries are put into groups.

Given                                                     Result
    e = expand(k [B, G, 1, T, d]) [B, G, n, T, d]             q2 = reshape(q)    [B, G, n, S, d]
    r = reshape(e)                [B, G n, T, d]              y2 = attention(q2, k, v) {mask="none"}
    (the same of v)                                           y  = reshape(y2)   [B, G n, S, d]
    y = attention(q [B, G n, S, d], r, ...) {mask="none"}

    e = expand(k [B, 1, T, d]) [B, H, T, d]                   y = attention(q, k, v) {mask="none"}
    y = attention(q, e, ...) {mask="none"}

Masked keys, and masked values, are then prepared once for a group, and the queries of a group are the rows of one
product. A mask that differs between heads stays as it is, and so does its attention.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.passes.graph.rewriting import Rewriter, rewrite

_PER_BATCH = ("none", "key")  # masks whose shape says nothing of heads


def group_heads(graph: Graph) -> Graph:
    """Rewrite attention, of a graph without repeats, whose keys and values are both repeated for groups of heads."""
    rules = {"attention": (_shared, _grouped), "attention_seen": (_shared, _grouped)}
    return without_dead_nodes(rewrite(graph, {}, rules))


def _knows_no_heads(node: Node) -> bool:
    return node.op == "attention_seen" or node.attr("mask") in _PER_BATCH


def _shared(rw: Rewriter, node: Node) -> str | None:
    """One head of keys and values for all queries, expanded."""
    inner = [rw.nodes[name] for name in node.inputs[1:3]]
    if not _knows_no_heads(node) or any(n.op != "expand" for n in inner):
        return None
    sources = [n.inputs[0] for n in inner]
    lead = node.type.shape[:-2]
    for name, expanded in zip(sources, inner, strict=True):
        shape = rw.type(name).shape
        if shape[-2:] != expanded.type.shape[-2:] or shape[:-2] != (*lead[:-1], 1):
            return None
    if rw.type(node.inputs[0]).shape[:-2] != lead:
        return None
    return rw.emit(node.op, [node.inputs[0], *sources, *node.inputs[3:]], **dict(node.attrs))


def _grouped(rw: Rewriter, node: Node) -> str | None:
    """Keys and values of several heads, each repeated for its group."""
    keys, values = (_unrepeated(rw, name) for name in node.inputs[1:3])
    if not _knows_no_heads(node) or keys is None or values is None:
        return None
    lead = rw.type(keys).shape[:-3]
    queries = rw.type(node.inputs[0])
    heads = queries.shape[-3]
    if rw.type(values).shape[:-2] != rw.type(keys).shape[:-2] or queries.shape[:-3] != lead[:-1]:
        return None
    apart = (*lead, heads // lead[-1])
    more = list(node.inputs[3:])
    if node.attr("bias") is not None:
        more[-1] = _bias_by_group(rw, more[-1], apart)
    q = rw.emit_beside("groups", "reshape", [node.inputs[0]], shape=(*apart, *queries.shape[-2:]))
    y = rw.emit_beside("grouped", node.op, [q, keys, values, *more], **dict(node.attrs))
    return rw.emit("reshape", [y], shape=node.type.shape)


def _bias_by_group(rw: Rewriter, name: str, apart: tuple[int, ...]) -> str:
    """A bias [.., heads or 1, S, T] in the dimensions of groups."""
    shape = rw.type(name).shape
    if len(shape) < 3:
        return name
    heads = apart[-2:] if shape[-3] != 1 else (1, 1)
    return rw.emit_beside("bias", "reshape", [name], shape=(*shape[:-3], *heads, *shape[-2:]))


def _unrepeated(rw: Rewriter, name: str) -> str | None:
    """[.., G, 1, T, d] of [.., G n, T, d] that repeats each of its heads n times."""
    node = rw.nodes[name]
    wide = rw.nodes[node.inputs[0]] if node.op == "reshape" else node
    if node.op != "reshape" or wide.op != "expand":
        return None
    small, shape = rw.type(wide.inputs[0]).shape, wide.type.shape
    repeats = len(small) == len(shape) >= 4 and small == (*shape[:-3], 1, *shape[-2:]) and shape[-3] > 1
    joins = len(shape) >= 4 and node.type.shape == (*shape[:-4], shape[-4] * shape[-3], *shape[-2:])
    return wide.inputs[0] if repeats and joins else None
