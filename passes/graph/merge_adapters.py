"""A low-rank adapter becomes part of the weight beside it where that is cheaper.

Given                                            Result
    h = linear(x, W, b)                              m = matmul(B, A)
    l = linear(linear(x, A), B)                      V = add(W, m)
    y = add(h, l)                                    y = linear(x, V, b)

The provider, who knows A and B, computes V once. Where a product with a public W costs nothing, W is better left
apart: then only the thin products are secret. Where it costs as much as a secret one (its price follows from the size
of the result alone), or where W is secret itself, the adapter would only add to it.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def merge_adapters(graph: Graph, *, public_products_local: bool) -> Graph:
    """Merge adapters of a labelled graph; visibilities have to be inferred again afterwards."""

    def rule(rw: Rewriter, node: Node) -> str | None:
        return _merged(rw, node, keep_public=public_products_local)

    return without_dead_nodes(rewrite(graph, {}, {"add": (rule,)}))


def _merged(rw: Rewriter, node: Node, *, keep_public: bool) -> str | None:
    for whole, low in (node.inputs, node.inputs[::-1]):
        base, found = rw.nodes[whole], _low_rank(rw, low)
        if found is None or base.op != "linear" or base.type != node.type or not rw.once(whole):
            continue
        x, a, b, factor = found
        weight = base.inputs[1]
        if x != base.inputs[0] or (keep_public and rw.nodes[weight].visibility == "public"):
            continue
        product = rw.emit("matmul", [b, a])
        if factor != 1.0:
            product = rw.emit("scale", [product], factor=factor)
        return rw.emit("linear", [x, rw.emit("add", [weight, product]), *base.inputs[2:]])
    return None


def _low_rank(rw: Rewriter, name: str) -> tuple[str, str, str, float] | None:
    """(x, A, B, factor) of factor * linear(linear(x, A), B) that nothing else reads, both matrices being weights."""
    node, factor = rw.nodes[name], 1.0
    if node.op == "scale" and rw.once(name):
        name, value = node.inputs[0], node.attr("factor")
        if not isinstance(value, (int, float)):
            return None
        node, factor = rw.nodes[name], float(value)
    if node.op != "linear" or len(node.inputs) != 2 or not rw.once(name):
        return None
    inner = rw.nodes[node.inputs[0]]
    if inner.op != "linear" or len(inner.inputs) != 2 or not rw.once(inner.name):
        return None
    a, b = inner.inputs[1], node.inputs[1]
    if rw.nodes[a].op != "param" or rw.nodes[b].op != "param":
        return None
    return inner.inputs[0], a, b, factor
