"""Scaled dot-product attention as one operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.nn import functional

from mpcc.compiler.ops.base import (
    FLOATS,
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
    integer,
    number,
    only,
    promote,
)
from mpcc.compiler.types import TensorType

MASKS = ("none", "keep", "additive", "key")


def scaled_scores(inputs: Tensors, attrs: Attrs) -> torch.Tensor:
    """scale q k^T [..., S, T], before any mask and cap."""
    return torch.matmul(inputs[0], inputs[1].transpose(-1, -2)) * number(attrs, "scale")


def capped(scores: torch.Tensor, attrs: Attrs) -> torch.Tensor:
    """cap tanh(scores / cap), where there is a cap."""
    if "cap" not in attrs:
        return scores
    cap = number(attrs, "cap")
    return torch.tanh(scores / cap) * cap


def kept_keys(inputs: Tensors, attrs: Attrs, scores: torch.Tensor) -> torch.Tensor:
    """Which of the scores count, as booleans of their shape: all, unless mask="key" says otherwise."""
    if choice(attrs, "mask", MASKS) != "key":
        return torch.ones_like(scores, dtype=torch.bool)
    keep = inputs[3].bool()
    return keep.reshape(keep.shape[0], *(1,) * (scores.dim() - 2), keep.shape[1]).expand(scores.shape)


def _repeated(b: Builder, x: Value, like: Sequence[int]) -> Value:
    """Keys or values [..., G, T, d] of groups of heads, each repeated for the heads of its group."""
    only(len(x.shape) == len(like) >= 3 and like[-3] % x.shape[-3] == 0, "groups of heads that do not fit the heads")
    times, (*lead, groups, length, width) = like[-3] // x.shape[-3], x.shape
    apart = b.emit("reshape", [x], shape=(*lead, groups, 1, length, width))
    wide = b.emit("expand", [apart], shape=(*lead, groups, times, length, width))
    return b.emit("reshape", [wide], shape=(*lead, groups * times, length, width))


def _sdpa(b: Builder, a: Args) -> Value:
    q, k, v, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    only(a["dropout_p"] == 0, "attention with dropout; put the model in eval mode")
    only(min(len(q.shape), len(k.shape), len(v.shape)) >= 2, "attention of vectors")
    if a["enable_gqa"]:
        k, v = (_repeated(b, x, q.shape) for x in (k, v))
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
    use for it). With `cap`, scores are bent by cap tanh(score / cap) before the mask.
    """

    name = "attention"
    arity = (3, 5)
    attrs = ("scale", "mask")
    optional_attrs: ClassVar[tuple[str, ...]] = ("cap",)
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
            mask = mask.reshape(mask.shape[0], *(1,) * (len(self._lead(inputs)) - 1), 1, mask.shape[1]) != 0
        return _attend(inputs, attrs, mask)

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        scores = scaled_scores(inputs, attrs)
        keep = kept_keys(inputs, attrs, scores)
        return {"score_abs": float(scores[keep].abs().max()), **_spread(capped(scores, attrs), keep, keep)}

    @staticmethod
    def _lead(inputs: Tensors) -> tuple[int, ...]:
        return broadcast("attention", *(tuple(t.shape[:-2]) for t in inputs[:3]))

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


class AttentionSeen(Op):
    """attention_seen(q, k, v, seen[, keep, anchor, blank][, bias]; scale, low, high): queries see some keys only.

    q [..., S, d], k [..., T, d], v [..., T, e] with leading dimensions to broadcast, the first of them the batch B.
    `seen` [1 or B, S, T], a boolean that everybody knows, says which keys a query sees: query i none but those with
    low <= key - i <= high. The client's `keep` and `anchor` [B, T] are as in `attention`; `blank` [B, S] is 1 for
    queries that see no kept key: their results are 0. `cap` as in `attention`. With the attribute `bias` the last input
    is public, broadcasts to [..., S, T] and is added to the scores.
    """

    name = "attention_seen"
    arity = (4, 8)
    attrs = ("scale", "low", "high")
    optional_attrs = ("bias", "cap")
    secure = True
    # as of attention, among seen keys, masked ones counting as the anchor; |score| after cap and bias;
    # log of the mean of a row's e^score
    statistics: ClassVar[tuple[str, ...]] = ("score_abs", "bent_abs", "spread", "lse_min", "lse_max", "mean_min")

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        number(attrs, "scale")
        integer(attrs, "low"), integer(attrs, "high")
        q, k, v, seen = inputs[:4]
        if min(len(t.shape) for t in (q, k, v)) < 3 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
            raise fail(self.name, f"q {q}, k {k} and v {v} do not fit")
        lead = broadcast(self.name, q.shape[:-2], k.shape[:-2], v.shape[:-2])
        queries, keys = q.shape[-2], k.shape[-2]
        if seen.dtype != "bool" or seen.shape not in ((1, queries, keys), (lead[0], queries, keys)):
            raise fail(self.name, f"seen {seen} for queries {q} and keys {k}")
        vectors, bias = (inputs[4:-1], inputs[-1]) if "bias" in attrs else (inputs[4:], None)
        if [t.shape for t in vectors] not in ([], [(lead[0], keys)] * 2 + [(lead[0], queries)]):
            raise fail(self.name, f"masks {', '.join(map(str, vectors))} for queries {q} and keys {k}")
        scores = (*lead, queries, keys)
        if bias is not None and (bias.dtype not in FLOATS or broadcast(self.name, scores, bias.shape) != scores):
            raise fail(self.name, f"bias {bias} for scores {scores}")
        return TensorType((*lead, queries, v.shape[-1]), promote(q.dtype, k.dtype, v.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        scores = scaled_scores(inputs, attrs)
        return _attend(inputs, attrs, self._masks(inputs, attrs, scores)[0], inputs[-1] if "bias" in attrs else None)

    @staticmethod
    def _masks(inputs: Tensors, attrs: Attrs, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(which scores count, which keys a query sees whether they are kept or not), in the shape of the scores."""
        ones = (1,) * (scores.dim() - 3)
        seen = inputs[3].bool()
        seen = seen.reshape(seen.shape[0], *ones, *seen.shape[1:]).expand(scores.shape)
        if len(inputs) < 7:
            return seen, seen
        return seen & inputs[4].bool().reshape(-1, *ones, 1, scores.shape[-1]), seen

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        scores = scaled_scores(inputs, attrs)
        counted, seen = self._masks(inputs, attrs, scores)
        if len(inputs) >= 7:
            anchor = (scores * inputs[5].reshape(-1, *(1,) * (scores.dim() - 2), scores.shape[-1])).sum(
                -1, keepdim=True
            )
            scores = torch.where(counted | ~seen, scores, anchor)
        some = counted.any(-1)
        bent = capped(scores, attrs) + (inputs[-1] if "bias" in attrs else 0.0)
        means = torch.logsumexp(bent.masked_fill(~counted, -math.inf), -1) - counted.sum(-1).log()
        largest = {"score_abs": float(scores[seen].abs().max()), **_spread(bent, seen, counted)}
        return {**largest, "bent_abs": float(bent[seen].abs().max()), "mean_min": float(means[some].min())}

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """Columns of v: masks by query know no other order."""
        rank = max(len(t.shape) for t in inputs[:3])
        return (None, None, aligned(inputs[2], rank, dim), *(None for _ in inputs[3:])) if dim == rank - 1 else None


def _attend(inputs: Tensors, attrs: Attrs, mask: torch.Tensor | None, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Of q, k, v; rows in which nothing is kept are 0, as PyTorch has it."""
    q, k, v = inputs[:3]
    if "cap" not in attrs and bias is None:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=number(attrs, "scale"))
    scores = capped(scaled_scores(inputs, attrs), attrs) + (0.0 if bias is None else bias)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.matmul(torch.softmax(scores, -1).nan_to_num(0.0), v)


def _spread(scores: torch.Tensor, seen: torch.Tensor, counted: torch.Tensor) -> Statistics:
    """The largest difference of seen scores of a row; extremes of the log of the sum of its counted e^score."""
    some = counted.any(-1)
    top, low = scores.masked_fill(~seen, -math.inf).amax(-1), scores.masked_fill(~seen, math.inf).amin(-1)
    sums = torch.logsumexp(scores.masked_fill(~counted, -math.inf), -1)
    return {"spread": float((top - low)[some].max()), **extremes("lse", sums[some])}


OPS: tuple[Op, ...] = (Attention(), AttentionSeen())
