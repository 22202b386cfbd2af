"""Remove what changes nothing, and say simply what export says in a roundabout way.

reshape(reshape(x))                 reshape(x)
reshape(linear(reshape(x), W))      linear(x, W), where both only join and part its rows
permute(permute(x))                 permute(x), or x
slice(expand(x)) of equal places    expand(x), to fewer of them
expand(x), slice(x), reshape(x), permute(x), cast(x) that change nothing; x + 0, 1 x
concat(x, nothing)                  x
logical_and(all true, x)            x, expanded where needed
where(all true, a, b)               a, expanded where needed
index(x, [arange, arange])          x, reshaped and expanded: how transformers broadcasts a padding mask
attention(.., mask all true)        attention without a mask
two equal operations                one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops.base import aligned
from mpcc.passes.graph.merge_equal import merge_equal
from mpcc.passes.graph.rewriting import Rewriter, Rule, rewrite


def simplify(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Apply the rules until nothing changes. Reads only constants from `tensors`."""
    while True:
        smaller = merge_equal(without_dead_nodes(rewrite(graph, tensors, RULES)))
        if smaller == graph:
            return graph
        graph = smaller


def _same_type(rw: Rewriter, node: Node) -> str | None:
    """An operation of which only the result's type matters, when that is the input's."""
    return node.inputs[0] if rw.type(node.inputs[0]) == node.type else None


def _reshape_reshape(rw: Rewriter, node: Node) -> str | None:
    inner = rw.nodes[node.inputs[0]]
    return rw.emit("reshape", inner.inputs, shape=node.attr("shape")) if inner.op == "reshape" else None


def _linear_of_rows(rw: Rewriter, node: Node) -> str | None:
    """A linear layer on rows that were laid out as a matrix only for it."""
    product = rw.nodes[node.inputs[0]]
    if product.op != "linear" or rw.nodes[product.inputs[0]].op != "reshape":
        return None
    x = rw.nodes[product.inputs[0]].inputs[0]
    rows = rw.type(x).shape[:-1]
    if rw.type(x).shape[-1:] != rw.type(product.inputs[0]).shape[-1:] or node.type.shape[:-1] != rows:
        return None
    if node.type.shape[-1:] != product.type.shape[-1:]:
        return None
    return rw.emit("linear", [x, *product.inputs[1:]])


def _expand_expand(rw: Rewriter, node: Node) -> str | None:
    inner = rw.nodes[node.inputs[0]]
    return rw.emit("expand", inner.inputs, shape=node.attr("shape")) if inner.op == "expand" else None


def _permute_permute(rw: Rewriter, node: Node) -> str | None:
    inner = rw.nodes[node.inputs[0]]
    outer_dims, inner_dims = node.attr("dims"), inner.attr("dims")
    if inner.op != "permute" or not isinstance(outer_dims, tuple) or not isinstance(inner_dims, tuple):
        return None
    return rw.emit("permute", inner.inputs, dims=tuple(inner_dims[d] for d in outer_dims if isinstance(d, int)))


def _identity_permute(rw: Rewriter, node: Node) -> str | None:
    dims = node.attr("dims")
    return node.inputs[0] if dims == tuple(range(len(node.type.shape))) else None


def _slice_expand(rw: Rewriter, node: Node) -> str | None:
    """A part of what only repeats one place is that place, repeated less often."""
    inner, dim = rw.nodes[node.inputs[0]], node.attr("dim")
    if inner.op != "expand" or not isinstance(dim, int):
        return None
    repeated = aligned(rw.type(inner.inputs[0]), len(inner.type.shape), dim) is None
    return rw.emit("expand", inner.inputs, shape=node.type.shape) if repeated and node.type.shape[dim] else None


def _scale_by_one(rw: Rewriter, node: Node) -> str | None:
    return node.inputs[0] if node.attr("factor") == 1 and rw.type(node.inputs[0]) == node.type else None


def _shift_by_zero(rw: Rewriter, node: Node) -> str | None:
    return node.inputs[0] if node.attr("offset") == 0 and rw.type(node.inputs[0]) == node.type else None


def _concat_of_some(rw: Rewriter, node: Node) -> str | None:
    """Inputs without elements are left out; of one input it is that itself."""
    full = [name for name in node.inputs if rw.type(name).elements]
    if len(full) == 1 and rw.type(full[0]) == node.type:
        return full[0]
    return rw.emit("concat", full, dim=node.attr("dim")) if 0 < len(full) < len(node.inputs) else None


def _expanded(rw: Rewriter, name: str, node: Node) -> str | None:
    """`name` in the type of `node`; None where it has another kind of element."""
    if rw.type(name).dtype != node.type.dtype:
        return None
    return name if rw.type(name) == node.type else rw.emit("expand", [name], shape=node.type.shape)


def _neutral(value: float) -> Rule:
    def rule(rw: Rewriter, node: Node) -> str | None:
        a, b = node.inputs
        if rw.uniform(a) == value:
            return _expanded(rw, b, node)
        return _expanded(rw, a, node) if rw.uniform(b) == value else None

    return rule


def _decided_where(rw: Rewriter, node: Node) -> str | None:
    condition = rw.uniform(node.inputs[0])
    return None if condition is None else _expanded(rw, node.inputs[1 if condition else 2], node)


def _maskless_attention(rw: Rewriter, node: Node) -> str | None:
    kind = node.attr("mask")
    if kind == "none" or rw.uniform(node.inputs[3]) != (1.0 if kind == "keep" else 0.0):
        return None
    return rw.emit("attention", node.inputs[:3], **{**dict(node.attrs), "mask": "none"})


def _index_by_position(rw: Rewriter, node: Node) -> str | None:
    """x indexed in every dimension by 0, 1, 2, ... along a dimension of the result of its own: a broadcast."""
    listed = node.attr("indices")
    shape = rw.type(node.inputs[0]).shape
    if node.attr("self") != ("tensor", 0) or not isinstance(listed, tuple) or len(listed) != len(shape):
        return None
    rank, target, last = len(node.type.shape), [1] * len(node.type.shape), -1
    for size, entry in zip(shape, listed, strict=True):
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], int)):
            return None
        index = rw.constant(node.inputs[entry[1]])
        at = None if index is None else _position(index, size, rank)
        if at is None or (at >= 0 and at <= last):
            return None
        if at >= 0:
            target[at], last = size, at
    plain = rw.emit("reshape", [node.inputs[0]], shape=tuple(target))
    return _expanded(rw, plain, node)


def _position(index: torch.Tensor, size: int, rank: int) -> int | None:
    """The dimension of the result along which `index` counts 0..size-1; -1 for a single zero; None for neither."""
    if index.dtype == torch.bool:
        return None
    if size == 1:
        return -1 if bool((index == 0).all()) else None
    wide = [d for d, n in enumerate(index.shape) if n != 1]
    if len(wide) != 1 or index.numel() != size or not torch.equal(index.reshape(-1), torch.arange(size).to(index)):
        return None
    return rank - index.dim() + wide[0]


RULES: Mapping[str, Sequence[Rule]] = {
    "reshape": (_same_type, _reshape_reshape, _linear_of_rows),
    "permute": (_identity_permute, _permute_permute),
    "expand": (_same_type, _expand_expand),
    "slice": (_same_type, _slice_expand),
    "cast": (_same_type,),
    "concat": (_concat_of_some,),
    "scale": (_scale_by_one,),
    "shift": (_shift_by_zero,),
    "logical_and": (_neutral(1.0),),
    "logical_or": (_neutral(0.0),),
    "where": (_decided_where,),
    "attention": (_maskless_attention,),
    "aten.index.Tensor": (_index_by_position,),
}
