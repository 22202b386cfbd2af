"""Padding masks become two small vectors per input: which keys are kept, and one kept key.

Given                                                Result
    m = expand(mask [B, 1, 1, S] bool)                   keep   = cast(reshape(mask)) [B, S], 0 or 1
    y = attention(q, k, v, m) {mask="keep"}              anchor = first_kept(keep) [B, S], one-hot
                                                         y = attention(q, k, v, keep, anchor) {mask="key"}

Both vectors depend on the mask's owner only, so the hoist stage computes them there. The lowering replaces masked keys
by the anchor (compiler/lowering/families/attention.py). Masks that differ between queries are left as they are.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.types import TensorType, attributes


def prepare_masks(graph: Graph) -> Graph:
    """Rewrite every attention whose mask is the same for all queries and heads."""
    index = {node.name: node for node in graph.nodes}
    prepared: dict[str, tuple[str, str]] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "attention" and node.attr("mask") == "keep":
            source = _per_key(index, node.inputs[3])
            if source is not None:
                if source.name not in prepared:
                    extra = _vectors(source)
                    nodes.extend(extra)
                    prepared[source.name] = (extra[1].name, extra[-1].name)
                node = replace(node, inputs=(*node.inputs[:3], *prepared[source.name])).with_attrs(mask="key")
        nodes.append(node)
    return without_dead_nodes(graph.with_nodes(nodes))


def _per_key(index: dict[str, Node], name: str) -> Node | None:
    """The [B, 1, .., 1, S] value behind layout operations, or None if the mask varies over heads or queries."""
    node = index[name]
    while node.op == "expand" and index[node.inputs[0]].type.shape[-1:] == node.type.shape[-1:]:
        node = index[node.inputs[0]]
    shape = node.type.shape
    return node if len(shape) >= 2 and all(size == 1 for size in shape[1:-1]) and len(shape) > 2 else None


def _vectors(mask: Node) -> list[Node]:
    batch, length = mask.type.shape[0], mask.type.shape[-1]
    stem, origin = mask.name, mask.origin

    def make(suffix: str, op: str, inputs: tuple[str, ...], element: str, **attrs: object) -> Node:
        type = TensorType((batch, length), element)
        return Node(f"{stem}_{suffix}", op, inputs, attributes(**attrs), type, origin)  # type: ignore[arg-type]

    flat = make("flat", "reshape", (mask.name,), mask.type.dtype, shape=(batch, length))
    keep = make("keep", "cast", (flat.name,), "f32", dtype="f32")
    return [flat, keep, make("anchor", "first_kept", (keep.name,), "f32")]
