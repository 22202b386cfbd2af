"""Masks become what everybody knows of them and two small vectors of their owner: keys that are kept, and one of them.

Given                                                  Result
    m = expand(mask [B, 1, 1, T] bool)                     keep   = cast(reshape(mask)) [B, T], 0 or 1
    y = attention(q, k, v, m) {mask="keep"}                anchor = first_kept(keep) [B, T], one-hot
                                                           y = attention(q, k, v, keep, anchor) {mask="key"}

    m = logical_and(causal [1, 1, S, T], mask)             blank  = blank_rows(keep, seen) [B, S]
    y = attention(q, k, v, m) {mask="keep"}                y = attention_seen(q, k, v, seen, keep, anchor, blank)
                                                                {low=-(S - 1), high=0}

The vectors depend on the mask's owner only, so the hoist stage computes them there. The lowering replaces masked keys
by the anchor, and does not compute what no query sees (compiler/lowering/families/attention.py). `seen` is public: a
constant, or made of inputs that are. A public mask that is added becomes what a query sees and a public bias of the
scores. Masks of one party that differ between queries, or heads, are left as they are; where they are added, what is
very negative becomes what just counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import MOVES_DATA
from mpcc.compiler.types import Attr
from mpcc.passes.graph.rewriting import Rewriter, rewrite

NOTHING = -512.0  # a score that is lower by so much leaves nothing of its key, and has no exponential of its own


def prepare_masks(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Rewrite every attention whose mask is public, the same for all queries and heads, or both together.

    Inputs have their roles. Reads only constants from `tensors`.
    """
    known = _known(graph, tensors)
    public = _public(graph)
    masks = _Masks(known, public, _of_inputs(graph))
    return without_dead_nodes(rewrite(graph, tensors, {"attention": (masks.rule,)}))


def _known(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values of all nodes that depend on constants alone and that masks may be made of."""
    found: set[str] = set()
    for node in graph:
        made = node.op in MOVES_DATA or node.op.startswith("logical_")
        if node.type.dtype == "bool" and (node.op == "constant" or (made and all(i in found for i in node.inputs))):
            found.add(node.name)
    part = Graph(tuple(n for n in graph if n.name in found), ())
    return run_graph(part, {}, tensors, keep=found)


def _of_inputs(graph: Graph) -> set[str]:
    """Nodes that depend on no weight: the client can compute them."""
    found: set[str] = set()
    for node in graph:
        if node.op in ("constant", "input") or (not node.is_leaf and all(i in found for i in node.inputs)):
            found.add(node.name)
    return found


def _public(graph: Graph) -> set[str]:
    """Nodes that depend on nothing but constants and public inputs."""
    found: set[str] = set()
    for node in graph:
        leaf = node.op == "constant" or (node.op == "input" and node.attr("role") == "public")
        if leaf or (not node.is_leaf and all(i in found for i in node.inputs)):
            found.add(node.name)
    return found


@dataclass(frozen=True)
class _Split:
    """A mask as the conjunction of public parts and of parts [B, 1, .., 1, T] of one party."""

    seen: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass
class _Masks:
    """The rule, and what it has prepared: layers with one mask share its vectors."""

    known: dict[str, torch.Tensor]
    public: set[str]
    of_inputs: set[str]
    made: dict[tuple[object, ...], str] = field(default_factory=dict)

    def rule(self, rw: Rewriter, node: Node) -> str | None:
        if node.attr("mask") == "additive":
            return self._added(rw, node)
        return self._kept(rw, node, node.inputs[3], None) if node.attr("mask") == "keep" else None

    def _kept(self, rw: Rewriter, node: Node, mask: str, bias: str | None) -> str | None:
        """The attention with a boolean mask and a public bias of the scores, if there is one."""
        split = self._split(rw, mask, len(node.type.shape))
        if split is None:
            return None
        batch, queries, keys = node.type.shape[0], node.type.shape[-2], rw.type(node.inputs[1]).shape[-2]
        kept = {k: v for k, v in node.attrs if k in ("cap", "scale")}
        vectors = self._vectors(rw, split.keys, batch, keys) if split.keys else []
        if not split.seen and vectors:
            return rw.emit("attention", [*node.inputs[:3], *vectors], mask="key", **kept)
        if not split.seen:
            return rw.emit("attention", node.inputs[:3], mask="none", **kept)
        low, high, seen = self._seen(rw, split.seen, batch, queries, keys)
        if vectors:
            vectors.append(self._once(rw, (seen, vectors[0]), "blank", "blank_rows", [vectors[0], seen]))
        if bias is not None:
            vectors, kept = [*vectors, bias], {**kept, "bias": True}
        return rw.emit("attention_seen", [*node.inputs[:3], seen, *vectors], low=low, high=high, **kept)

    def _added(self, rw: Rewriter, node: Node) -> str | None:
        """A mask of real numbers: what is as low as NOTHING, or lower, is not seen, the rest is a bias."""
        mask, rank = rw.nodes[node.inputs[3]], len(node.type.shape)
        if mask.name not in self.of_inputs or rw.nodes[mask.name].op == "aten.clamp_min.default":
            return None
        lowest: dict[str, Attr] = {"self": ("tensor", 0), "min": NOTHING}
        bounded = self._once(rw, (mask.name,), "bounded", "aten.clamp_min.default", [mask.name], mask, **lowest)
        shape = (1,) * (rank - len(mask.type.shape)) + mask.type.shape
        if mask.name not in self.public or rank < 3 or any(n != 1 for n in shape[1:-2]):
            return rw.emit("attention", [*node.inputs[:3], bounded], **dict(node.attrs))
        whole = self._once(rw, (bounded,), "whole", "reshape", [bounded], mask, shape=shape)
        above = self._once(rw, (whole, "above"), "above", "shift", [whole], mask, offset=-NOTHING)
        seen = self._once(rw, (above, "seen"), "seen", "cast", [above], mask, dtype="bool")
        self.public.add(seen)
        value = rw.constant(mask.name)
        bias: str | None = None
        if value is not None:
            self.known[seen] = (value > NOTHING).reshape(shape)
        if value is None or bool((value[value > NOTHING] != 0).any()):
            ones = self._once(rw, (seen, "ones"), "ones", "cast", [seen], mask, dtype="f32")
            bias = self._once(rw, (whole, ones), "bias", "mul", [whole, ones], mask)
        return self._kept(rw, node, seen, bias)

    def _split(self, rw: Rewriter, name: str, rank: int) -> _Split | None:
        """None where a part differs between heads, or is one party's and differs between queries."""
        node = rw.nodes[name]
        shape = (1,) * (rank - len(node.type.shape)) + node.type.shape
        if name in self.public:
            value = self.known.get(name)
            if value is not None and bool(value.all()):
                return _Split()
            return _Split(seen=(name,)) if rank > 2 and all(n == 1 for n in shape[1:-2]) else None
        if node.op == "logical_and":
            parts = [self._split(rw, i, rank) for i in node.inputs]
            if parts[0] is None or parts[1] is None:
                return None
            return _Split(parts[0].seen + parts[1].seen, parts[0].keys + parts[1].keys)
        if node.op == "expand" and rw.type(node.inputs[0]).shape[-1:] == shape[-1:]:
            return self._split(rw, node.inputs[0], rank)
        return _Split(keys=(name,)) if rank > 2 and all(n == 1 for n in shape[1:-1]) else None

    def _seen(self, rw: Rewriter, parts: tuple[str, ...], batch: int, queries: int, keys: int) -> tuple[int, int, str]:
        """(least and greatest place of a seen key from its query's, the mask [1 or B, S, T])."""
        low, high = -(queries - 1), keys - 1
        values = [self.known[p].reshape(-1, *self.known[p].shape[-2:]) for p in parts if p in self.known]
        if values:
            seen = values[0].any(0).expand(queries, keys)
            for value in values[1:]:
                seen = seen & value.any(0)
            at = seen.nonzero()
            away = at[:, 1] - at[:, 0]
            low, high = (int(away.min()), int(away.max())) if len(at) else (0, 0)
        flat = [self._flat(rw, p, batch, queries, keys) for p in parts]
        joined = flat[0]
        for other in flat[1:]:
            joined = self._once(rw, (joined, other), "seen", "logical_and", [joined, other])
        return low, high, joined

    def _flat(self, rw: Rewriter, part: str, batch: int, queries: int, keys: int) -> str:
        """A public part as [1 or B, S, T]."""
        node = rw.nodes[part]
        rows = node.type.shape[0] if len(node.type.shape) > 2 else 1
        small = (1, 1, *node.type.shape)[-2:]
        flat = self._once(rw, (part, "flat"), "flat", "reshape", [part], node, shape=(rows, *small))
        if (rows, *small) == (rows, queries, keys) and rows in (1, batch):
            return flat
        return self._once(rw, (part, "each"), "each", "expand", [flat], node, shape=(rows, queries, keys))

    def _vectors(self, rw: Rewriter, parts: tuple[str, ...], batch: int, keys: int) -> list[str]:
        """[keep, anchor] of a mask, named after it; a mask for the whole batch becomes one for each of its inputs."""
        mask, flat = rw.nodes[parts[0]], ""
        for part in parts:
            node = rw.nodes[part]
            rows = node.type.shape[0] if len(node.type.shape) > 1 else 1
            one = self._once(rw, (part, "row"), "flat", "reshape", [part], node, shape=(rows, node.type.shape[-1]))
            flat = self._once(rw, (flat, one), "both", "logical_and", [flat, one], node) if flat else one
        if rw.type(flat).shape != (batch, keys):
            flat = self._once(rw, (flat, batch), "each", "expand", [flat], mask, shape=(batch, keys))
        keep = self._once(rw, (flat, "keep"), "keep", "cast", [flat], mask, dtype="f32")
        return [keep, self._once(rw, (keep, "anchor"), "anchor", "first_kept", [keep], mask)]

    def _once(
        self,
        rw: Rewriter,
        key: tuple[object, ...],
        suffix: str,
        op: str,
        inputs: list[str],
        like: Node | None = None,
        /,
        **attrs: Attr,
    ) -> str:
        """A helper node that is made once for each `key`; a layout that changes nothing is none."""
        key = (*key, *sorted(attrs.items()))
        if op == "reshape" and rw.type(inputs[0]).shape == attrs["shape"]:
            return inputs[0]
        if key not in self.made:
            like = like or rw.nodes[inputs[0]]
            self.made[key] = rw.emit_beside(suffix, op, inputs, like, **attrs)
        return self.made[key]
