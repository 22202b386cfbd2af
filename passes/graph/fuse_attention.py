"""Recognise attention that was written out, and masks that are boolean at heart.

    %s = matmul(%q, %kt)                        Result:
    %t = scale(%s) {factor=0.125}               %k = permute(%kt)
    %u = add(%t, %mask)                         %y = attention(%q, %k, %v, %mask) {mask="additive", scale=0.125}
    %p = softmax(%u) {dim=3}
    %y = matmul(%p, %v)

A cap, c tanh(x / c), becomes one operation, and of scores an attribute: attention(..) {cap=c}.
An additive mask that is 0 where something is kept and very negative elsewhere becomes that boolean with mask="keep".
The two differ only in rows in which nothing is kept, whose result no model reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import MOVES_DATA
from mpcc.compiler.types import Attr
from mpcc.passes.graph.rewriting import Rewriter, rewrite

# Below this an additive mask leaves nothing of a score: exp(-1e4) is 0 in every format used here.
VERY_NEGATIVE = -1e4


@dataclass(frozen=True)
class _Scores:
    """The pieces of softmax(scale q k^T + mask), with a cap of the scores or without."""

    q: str
    kt: str
    scale: float
    mask: str = ""
    kind: str = "none"
    cap: float | None = None

    @property
    def attrs(self) -> dict[str, Attr]:
        return {"scale": self.scale, "mask": self.kind, **({} if self.cap is None else {"cap": self.cap})}


def fuse_attention(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Fuse attention, then normalise the masks of all attention in the graph. Reads only constants."""
    capped = without_dead_nodes(rewrite(graph, tensors, {"scale": (_soft_cap,)}))
    fused = without_dead_nodes(rewrite(capped, tensors, {"matmul": (_attention,)}))
    return without_dead_nodes(rewrite(fused, tensors, {"attention": (_keep_mask,)}))


def _soft_cap(rw: Rewriter, node: Node) -> str | None:
    """c tanh(x), with x scaled before or not, as soft_cap(c x) {cap=c}."""
    bent, cap = rw.nodes[node.inputs[0]], node.attr("factor")
    if bent.op != "tanh" or not rw.once(bent.name) or not isinstance(cap, (int, float)) or cap <= 0:
        return None
    inner, factor = rw.nodes[bent.inputs[0]], 1.0
    if inner.op == "scale" and rw.once(inner.name):
        given = inner.attr("factor")
        if isinstance(given, (int, float)) and given > 0:
            inner, factor = rw.nodes[inner.inputs[0]], float(given)
    factor = 1.0 if math.isclose(factor * cap, 1.0, rel_tol=1e-6) else factor * cap
    x = inner.name if factor == 1.0 else rw.emit_beside("scaled", "scale", [inner.name], factor=factor)
    return rw.emit("soft_cap", [x], cap=float(cap))


def _attention(rw: Rewriter, node: Node) -> str | None:
    softmax = rw.nodes[node.inputs[0]]
    if softmax.op != "softmax" or softmax.attr("dim") != len(softmax.type.shape) - 1 or not rw.once(softmax.name):
        return None
    scores = _scores(rw, rw.nodes[softmax.inputs[0]])
    if scores is None:
        return None
    rank = len(rw.type(scores.kt).shape)
    k = rw.emit("permute", [scores.kt], dims=(*range(rank - 2), rank - 1, rank - 2))
    inputs = [scores.q, k, node.inputs[1]] + ([scores.mask] if scores.mask else [])
    return rw.emit("attention", inputs, **scores.attrs)


def _scores(rw: Rewriter, node: Node) -> _Scores | None:
    if not rw.once(node.name):
        return None
    if node.op == "add":
        for inner, mask in (node.inputs, node.inputs[::-1]):
            found = _product(rw, rw.nodes[inner])
            if found is not None and rw.type(inner) == node.type and rw.type(mask).dtype == node.type.dtype:
                return replace(found, mask=mask, kind="additive")
        return None
    if node.op == "where":
        return _masked(rw, node)
    return _product(rw, node)


def _masked(rw: Rewriter, node: Node) -> _Scores | None:
    """Scores overwritten by a very negative number where a condition holds (or does not)."""
    condition, a, b = node.inputs
    for inner, filler, dropped in ((b, a, True), (a, b, False)):
        number, found = rw.uniform(filler), _product(rw, rw.nodes[inner])
        if found is None or number is None or number > VERY_NEGATIVE or rw.type(inner) != node.type:
            continue
        keep = rw.emit("logical_not", [condition]) if dropped else condition
        return replace(found, mask=keep, kind="keep")
    return None


def _product(rw: Rewriter, node: Node) -> _Scores | None:
    """scale * matmul(q, kt), the scale being optional, below a cap or not."""
    if not rw.once(node.name):
        return None
    if node.op == "soft_cap":
        inner, cap = _product(rw, rw.nodes[node.inputs[0]]), node.attr("cap")
        return replace(inner, cap=cap) if inner is not None and inner.cap is None and isinstance(cap, float) else None
    if node.op == "scale":
        inner, factor = _product(rw, rw.nodes[node.inputs[0]]), node.attr("factor")
        if inner is None or inner.cap is not None or not isinstance(factor, (int, float)):
            return None
        return _Scores(inner.q, inner.kt, inner.scale * factor)
    return _Scores(node.inputs[0], node.inputs[1], 1.0) if node.op == "matmul" else None


def _keep_mask(rw: Rewriter, node: Node) -> str | None:
    if node.attr("mask") != "additive":
        return None
    keep = _kept(rw, node.inputs[3])
    if keep is None:
        return None
    return rw.emit("attention", [*node.inputs[:3], keep], **{**dict(node.attrs), "mask": "keep"})


def _kept(rw: Rewriter, name: str) -> str | None:
    """The boolean that an additive mask stands for, in the mask's shape."""
    node = rw.nodes[name]
    if _moves_one(node):
        inner = _kept(rw, node.inputs[0])
        return None if inner is None else rw.emit(node.op, [inner], **dict(node.attrs))
    if node.op == "where":
        return _kept_where(rw, node)
    return _kept_product(rw, node)


def _kept_where(rw: Rewriter, node: Node) -> str | None:
    condition, a, b = node.inputs
    yes, no = rw.uniform(a), rw.uniform(b)
    if yes is None or no is None or 0.0 not in (yes, no) or min(yes, no) > VERY_NEGATIVE:
        return None
    keep = condition if yes == 0 else rw.emit("logical_not", [condition])
    return keep if rw.type(keep).shape == node.type.shape else rw.emit("expand", [keep], shape=node.type.shape)


def _kept_product(rw: Rewriter, node: Node) -> str | None:
    """(1 - m) * very negative, with m an integer or boolean that is 1 where something is kept."""
    factor = node.attr("factor")
    if node.op != "scale" or not isinstance(factor, (int, float)) or factor > VERY_NEGATIVE:
        return None
    shift = rw.nodes[node.inputs[0]]
    if shift.op != "shift" or shift.attr("offset") != 1:
        return None
    minus = rw.nodes[shift.inputs[0]]
    if minus.op != "scale" or minus.attr("factor") != -1:
        return None
    return _truth(rw, minus.inputs[0])


def _truth(rw: Rewriter, name: str) -> str | None:
    """A boolean of the same shape for a 0/1 mask that was an integer or boolean before it became a float."""
    node = rw.nodes[name]
    if node.type.dtype == "bool":
        return name
    if node.type.dtype in ("i32", "i64"):
        return rw.emit("cast", [name], dtype="bool")
    if node.op == "cast":
        return _truth(rw, node.inputs[0])
    if _moves_one(node):
        inner = _truth(rw, node.inputs[0])
        return None if inner is None else rw.emit(node.op, [inner], **dict(node.attrs))
    return None


def _moves_one(node: Node) -> bool:
    """Whether the node is one value in another layout."""
    return node.op in MOVES_DATA and len(node.inputs) == 1
