"""Padding masks become two small vectors per input: which keys are kept, and one kept key.

Given                                                Result
    m = expand(mask [B, 1, 1, S] bool)                   keep   = cast(reshape(mask)) [B, S], 0 or 1
    y = attention(q, k, v, m) {mask="keep"}              anchor = first_kept(keep) [B, S], one-hot
                                                         y = attention(q, k, v, keep, anchor) {mask="key"}

Both vectors depend on the mask's owner only, so the hoist stage computes them there. The lowering replaces masked keys
by the anchor (compiler/lowering/families/attention.py). Masks that differ between queries are left as they are.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def prepare_masks(graph: Graph) -> Graph:
    """Rewrite every attention whose mask is the same for all queries and heads."""
    prepared: dict[tuple[str, int], tuple[str, str]] = {}

    def rule(rw: Rewriter, node: Node) -> str | None:
        mask = _per_key(rw, node.inputs[3]) if node.attr("mask") == "keep" else None
        if mask is None:
            return None
        key = mask.name, node.type.shape[0]
        if key not in prepared:
            prepared[key] = _vectors(rw, mask, node.type.shape[0])
        return rw.emit("attention", [*node.inputs[:3], *prepared[key]], scale=node.attr("scale"), mask="key")

    return without_dead_nodes(rewrite(graph, {}, {"attention": (rule,)}))


def _per_key(rw: Rewriter, name: str) -> Node | None:
    """The [B, 1, .., 1, S] value behind expansions, or None if the mask varies over heads or queries."""
    node = rw.nodes[name]
    while node.op == "expand" and rw.type(node.inputs[0]).shape[-1:] == node.type.shape[-1:]:
        node = rw.nodes[node.inputs[0]]
    shape = node.type.shape
    return node if len(shape) > 2 and all(size == 1 for size in shape[1:-1]) else None


def _vectors(rw: Rewriter, mask: Node, batch: int) -> tuple[str, str]:
    """(keep, anchor) of a mask, named after it; a mask for the whole batch becomes one for each of its inputs."""
    rows, length = mask.type.shape[0], mask.type.shape[-1]
    flat = rw.emit_beside("flat", "reshape", [mask.name], mask, shape=(rows, length))
    if rows != batch:
        flat = rw.emit_beside("each", "expand", [flat], mask, shape=(batch, length))
    keep = rw.emit_beside("keep", "cast", [flat], mask, dtype="f32")
    return keep, rw.emit_beside("anchor", "first_kept", [keep], mask)
