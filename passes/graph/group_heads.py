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
    pieces = [_unrepeated(rw, name) for name in node.inputs[1:3]]
    if not _knows_no_heads(node) or pieces[0] is None or pieces[1] is None:
        return None
    lead = rw.type(pieces[0]).shape[:-3]
    queries = rw.type(node.inputs[0])
    heads = queries.shape[-3]
    if rw.type(pieces[1]).shape[:-2] != rw.type(pieces[0]).shape[:-2] or queries.shape[:-3] != lead[:-1]:
        return None
    apart = (*lead, heads // lead[-1])
    q = rw.emit_beside("groups", "reshape", [node.inputs[0]], shape=(*apart, *queries.shape[-2:]))
    y = rw.emit_beside("grouped", node.op, [q, *pieces, *node.inputs[3:]], **dict(node.attrs))
    return rw.emit("reshape", [y], shape=node.type.shape)


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
