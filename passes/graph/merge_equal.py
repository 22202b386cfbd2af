"""Two equal operations become one.

Given                                Result
    a = cast(m) {dtype="f32"}            a = cast(m) {dtype="f32"}
    b = cast(m) {dtype="f32"}            y = mul(a, a)
    y = mul(a, b)
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def merge_equal(graph: Graph) -> Graph:
    """Let readers of an operation read the first one that is equal to it. A graph with loops is left alone."""
    if any(n.body is not None for n in graph.nodes):
        return graph
    first: dict[tuple[object, ...], str] = {}

    def rule(rw: Rewriter, node: Node) -> str | None:
        key = (node.op, node.inputs, repr(node.attrs), node.type)
        found = first.setdefault(key, node.name)
        return None if found == node.name else found

    return rewrite(graph, {}, dict.fromkeys({n.op for n in graph.nodes if not n.is_leaf}, (rule,)))
