"""Recognise RMSNorm and LayerNorm that are written out.

Given                                               Result
    %q = square(%x)                                     %y = rms_norm(%x, %w) {eps=1e-6, gain=1.0}
    %m = mean(%q) {dims=(2), keepdim=true}
    %s = shift(%m) {offset=1e-6}
    %r = rsqrt(%s)
    %n = mul(%x, %r)
    %y = mul(%w, %n)

The root may be 1 / sqrt(s), or stand below a fraction; w may be any vector, such as 1 + w. Where x is z - mean(z) it
is a LayerNorm of z, to which an added vector belongs, too. Export has widened 16-bit floats, so that the casts around
a norm are gone by now.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def fuse_norms(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Fuse the norms of a graph without loops. Reads only constants."""
    rules = {"mul": (_of_product, _with_gamma), "div": (_of_fraction,), "add": (_with_beta,)}
    return without_dead_nodes(rewrite(graph, tensors, rules))


def _of_product(rw: Rewriter, node: Node) -> str | None:
    """x times 1 / sqrt(mean(x^2) + eps)."""
    for x, factor in (node.inputs, node.inputs[::-1]):
        root = rw.nodes[_repeated(rw, factor)]
        if root.op == "rsqrt":
            return _norm(rw, node, x, root.inputs[0])
        if root.op == "reciprocal" and rw.nodes[root.inputs[0]].op == "sqrt":
            return _norm(rw, node, x, rw.nodes[root.inputs[0]].inputs[0])
    return None


def _of_fraction(rw: Rewriter, node: Node) -> str | None:
    """x divided by sqrt(mean(x^2) + eps)."""
    root = rw.nodes[_repeated(rw, node.inputs[1])]
    return _norm(rw, node, node.inputs[0], root.inputs[0]) if root.op == "sqrt" else None


def _norm(rw: Rewriter, node: Node, x: str, under_root: str) -> str | None:
    """The norm of x, if what stands under the root is its mean square and a small constant."""
    mean, eps = _shifted(rw, under_root)
    square = _mean_of(rw, mean, node)
    if square is None or eps < 0 or rw.type(x) != node.type or not _is_square(rw.nodes[square], x):
        return None
    z = _centred(rw, rw.nodes[x])
    if z is not None:
        return rw.emit("layer_norm", [z], eps=eps, affine="none")
    return rw.emit("rms_norm", [x], eps=eps, gain=1.0)


def _shifted(rw: Rewriter, name: str) -> tuple[str, float]:
    """(v, eps) of v + eps."""
    node = rw.nodes[name]
    offset = node.attr("offset")
    if node.op == "shift" and isinstance(offset, (int, float)):
        return node.inputs[0], float(offset)
    if node.op == "add":
        for value, other in (node.inputs, node.inputs[::-1]):
            number = rw.uniform(other)
            if number is not None:
                return value, number
    return name, 0.0


def _mean_of(rw: Rewriter, name: str, like: Node) -> str | None:
    """v of mean(v) over the last dimension, which may be written as a sum times 1 / width."""
    node, rank = rw.nodes[_repeated(rw, name)], len(like.type.shape)
    factor = node.attr("factor")
    if node.op == "scale" and isinstance(factor, (int, float)) and abs(factor * like.type.shape[-1] - 1) < 1e-6:
        node = rw.nodes[node.inputs[0]]
        over = node.op == "sum"
    else:
        over = node.op == "mean"
    return node.inputs[0] if over and rank and node.attr("dims") == (rank - 1,) else None


def _is_square(node: Node, x: str) -> bool:
    return node.inputs == ((x,) if node.op == "square" else (x, x)) and node.op in ("square", "mul")


def _centred(rw: Rewriter, node: Node) -> str | None:
    """z of z - mean(z)."""
    if node.op != "sub" or _mean_of(rw, node.inputs[1], node) != node.inputs[0]:
        return None
    return node.inputs[0] if rw.type(node.inputs[0]) == node.type else None


def _repeated(rw: Rewriter, name: str) -> str:
    """What `name` holds once for each row: without its repetition, and without the dimension made for it."""
    node = rw.nodes[name]
    while node.op == "expand" or (node.op == "reshape" and _adds_last(rw, node)):
        node = rw.nodes[node.inputs[0]]
    return node.name


def _adds_last(rw: Rewriter, node: Node) -> bool:
    return node.type.shape == (*rw.type(node.inputs[0]).shape, 1)


def _with_gamma(rw: Rewriter, node: Node) -> str | None:
    for name, vector in (node.inputs, node.inputs[::-1]):
        norm = rw.nodes[name]
        plain = norm.op == "rms_norm" or (norm.op == "layer_norm" and norm.attr("affine") == "none")
        if plain and len(norm.inputs) == 1 and rw.once(name) and _is_vector(rw, vector, norm, node):
            attrs = {"affine": "gamma"} if norm.op == "layer_norm" else {}
            return rw.emit(norm.op, [*norm.inputs, _flat(rw, vector)], **(dict(norm.attrs) | attrs))
    return None


def _with_beta(rw: Rewriter, node: Node) -> str | None:
    for name, vector in (node.inputs, node.inputs[::-1]):
        norm = rw.nodes[name]
        scaled = norm.op == "layer_norm" and norm.attr("affine") == "gamma"
        if scaled and rw.once(name) and _is_vector(rw, vector, norm, node):
            return rw.emit("layer_norm", [*norm.inputs, _flat(rw, vector)], eps=norm.attr("eps"), affine="gamma_beta")
    return None


def _is_vector(rw: Rewriter, name: str, norm: Node, node: Node) -> bool:
    """Whether `name` has one entry for each place of a row, the same for all rows."""
    type, width = rw.type(name), norm.type.shape[-1]
    same = node.type == norm.type and type.dtype == norm.type.dtype
    return same and type.shape[-1:] == (width,) and type.elements == width and len(type.shape) <= len(norm.type.shape)


def _flat(rw: Rewriter, name: str) -> str:
    shape = rw.type(name).shape
    return name if len(shape) == 1 else rw.emit_beside("vector", "reshape", [name], shape=shape[-1:])
