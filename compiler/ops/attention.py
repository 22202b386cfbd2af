"""Scaled dot-product attention as one operation."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch.nn import functional

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Op,
    Sources,
    Statistics,
    Tensors,
    Types,
    Value,
    aligned,
    broadcast,
    choice,
    extremes,
    fail,
    number,
    only,
    promote,
)
from mpcc.compiler.types import TensorType

MASKS = ("none", "keep", "additive", "key")


def scaled_scores(inputs: Tensors, attrs: Attrs) -> torch.Tensor:
    """scale q k^T [..., S, T], before any mask."""
    return torch.matmul(inputs[0], inputs[1].transpose(-1, -2)) * number(attrs, "scale")


def kept_keys(inputs: Tensors, attrs: Attrs, scores: torch.Tensor) -> torch.Tensor:
    """Which of the scores count, as booleans of their shape: all, unless mask="key" says otherwise."""
    if choice(attrs, "mask", MASKS) != "key":
        return torch.ones_like(scores, dtype=torch.bool)
    keep = inputs[3].bool()
    return keep.reshape(keep.shape[0], *(1,) * (scores.dim() - 2), keep.shape[1]).expand(scores.shape)


def _sdpa(b: Builder, a: Args) -> Value:
    q, k, v, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    only(a["dropout_p"] == 0, "attention with dropout; put the model in eval mode")
    only(not a["enable_gqa"], "grouped-query attention (enable_gqa) is not supported yet")
    only(min(len(q.shape), len(k.shape), len(v.shape)) >= 2, "attention of vectors")
    scale = 1.0 / math.sqrt(q.shape[-1]) if a["scale"] is None else float(a["scale"])
    if a["is_causal"]:
        only(mask is None, "attention with both is_causal and a mask")
        mask = b.literal(torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril())
    if mask is None:
        return b.emit("attention", [q, k, v], scale=scale, mask="none")
    return b.emit("attention", [q, k, v, mask], scale=scale, mask="keep" if mask.dtype == "bool" else "additive")


class Attention(Op):
    """attention(q, k, v[, mask...]; scale, mask) = softmax(scale q k^T + mask) v, as scaled_dot_product_attention.

    q [..., S, d], k [..., T, d], v [..., T, e]; the mask broadcasts to [..., S, T]. `mask` is "none", "keep" (boolean:
    positions that hold False take no part), "additive" (float, added to the scores) or "key": then two matrices [B, S]
    follow, `keep` (1 for the keys that take part, else 0) and `anchor` (one-hot, one such key; the reference has no
    use for it).
    """

    name = "attention"
    arity = (3, 5)
    attrs = ("scale", "mask")
    secure = True
    # the largest |score|; the largest difference between kept scores of a row; log of the sum of a row's e^score
    statistics: ClassVar[tuple[str, ...]] = ("score_abs", "spread", "lse_min", "lse_max")
    aten = {"aten.scaled_dot_product_attention.default": _sdpa}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        number(attrs, "scale")
        kind = choice(attrs, "mask", MASKS)
        q, k, v = inputs[:3]
        if min(len(t.shape) for t in (q, k, v)) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
            raise fail(self.name, f"q {q}, k {k} and v {v} do not fit")
        if len(inputs) != {"none": 3, "key": 5}.get(kind, 4):
            raise fail(self.name, f"mask={kind} with {len(inputs)} inputs")
        lead = broadcast(self.name, q.shape[:-2], k.shape[:-2], v.shape[:-2])
        if kind == "key" and any(t.shape != (lead[0], k.shape[-2]) for t in inputs[3:]):
            raise fail(self.name, f"key masks {inputs[3]} and {inputs[4]} for keys {k}")
        if len(inputs) == 4:
            scores = (*lead, q.shape[-2], k.shape[-2])
            if broadcast(self.name, scores, inputs[3].shape) != scores:
                raise fail(self.name, f"mask {inputs[3]} does not broadcast to the scores {scores}")
            if (inputs[3].dtype == "bool") != (kind == "keep"):
                raise fail(self.name, f"mask={kind} with a {inputs[3].dtype} tensor")
        return TensorType((*lead, q.shape[-2], v.shape[-1]), promote(q.dtype, k.dtype, v.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        mask = inputs[3] if len(inputs) > 3 else None
        if mask is not None and choice(attrs, "mask", MASKS) == "key":
            mask = mask.reshape(mask.shape[0], *(1,) * (inputs[1].dim() - 2), mask.shape[1]) != 0
        q, k, v = inputs[:3]
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=number(attrs, "scale"))

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        scores = scaled_scores(inputs, attrs)
        keep = kept_keys(inputs, attrs, scores)
        low = scores.masked_fill(~keep, math.inf).amin(-1)
        only_kept = scores.masked_fill(~keep, -math.inf)
        return {
            "score_abs": float(scores[keep].abs().max()),
            "spread": float((only_kept.amax(-1) - low).max()),
            **extremes("lse", torch.logsumexp(only_kept, -1)),
        }

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """Queries, columns of v, or any leading dimension."""
        rank = max(len(t.shape) for t in inputs[:3])
        q, k, v = (aligned(t, rank, dim) for t in inputs[:3])
        if choice(attrs, "mask", MASKS) == "key":
            masks: Sources = (0 if dim == 0 else None,) * 2
        else:
            masks = tuple(aligned(t, rank, dim) for t in inputs[3:])
        if dim == rank - 1:
            return (None, None, v, *(None for _ in masks))
        return (q, None, None, *masks) if dim == rank - 2 else (q, k, v, *masks)


OPS: tuple[Op, ...] = (Attention(),)
