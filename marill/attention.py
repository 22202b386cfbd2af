"""Attention with merged heads and with polynomial forms of softmax, behind transformers' attention interface.

The interface hands over queries, keys and values by head, after any rotary embedding: rotation stays that of the
original heads. m heads of width d that are merged become one of width m d,

    P = softmax(sum_g Q_g K_g^T / sqrt(m d)),   output = P [V_1 | ... | V_m],

and the output is cut into the original heads again, so the output projection is what it was. No weight is moved: the
order of the heads is public structure, and frozen tensors stay equal to the open checkpoint's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from mpcc.compiler.ops.substitutes import WEIGHTS
from mpcc.compiler.substitutes import LEAST_SUM

IMPLEMENTATION = "mpcc"
SOFTMAX_FORMS = tuple(WEIGHTS)


@dataclass(frozen=True)
class Choice:
    """How one layer attends: key-value heads of each merged head, query heads per key-value head, form of softmax."""

    groups: tuple[tuple[int, ...], ...] = ()
    repeats: int = 1
    softmax: str = ""


def register() -> None:
    """Make the implementation known to transformers. May be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer as its `mpcc_choice` says; without one, the usual.

    Args:
        module: the attention module; query [B, H, S, d], key and value [B, H / repeats, S, d].
        attention_mask: boolean [B, 1, S or 1, S], true where something is kept, or None.

    Returns:
        [B, S, H, d], as transformers wants it, and no weights.
    """
    chosen = getattr(module, "mpcc_choice", None) or Choice(repeats=query.shape[1] // key.shape[1])
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    members = len(chosen.groups[0]) if chosen.groups else 1
    if members > 1:
        query = _merged(query, _query_groups(chosen))
        key, value = (_merged(x, chosen.groups) for x in (key, value))
        scale /= math.sqrt(members)
    key, value = (_repeated(x, chosen.repeats) for x in (key, value))
    if chosen.softmax:
        out = polynomial(query, key, value, attention_mask, scale, chosen.softmax, causal, dropout)
    else:
        causal = causal and attention_mask is None and query.shape[2] > 1
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scale, is_causal=causal
        )
    if members > 1:
        out = _separated(out, _query_groups(chosen))
    return out.transpose(1, 2).contiguous(), None


def polynomial(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    form: str,
    causal: bool,
    dropout: float = 0.0,
) -> Tensor:
    """w V / (sum of w + 2^-6) with w = (s + 5)^2 ("2quad") or relu(s) ("2relu") of the scores s (MPCFormer).

    Normalised after use, on S x d instead of S x S elements. A mask that is the same for all queries is applied to
    the values and to the ones that are summed up: it never touches S x S elements either.
    """
    scores = (query @ key.transpose(-2, -1)) * scale
    weights = WEIGHTS[form](scores)
    if causal:
        rows, columns = scores.shape[-2:]
        weights = weights * torch.ones(rows, columns, dtype=weights.dtype).tril(columns - rows)
    if mask is None or causal:
        if mask is not None:
            weights = weights * mask.to(weights.dtype)
        total = weights.sum(-1, keepdim=True)
    else:
        keep = mask[..., :1, :].to(weights.dtype).transpose(-2, -1)  # [B, 1, S, 1]
        total = weights @ keep
        value = value * keep
    return (drop(weights, dropout) @ value) / (total + LEAST_SUM)


def _query_groups(chosen: Choice) -> tuple[tuple[int, ...], ...]:
    """The query heads of each merged head: the j-th queries of all key-value heads in a group go together."""
    repeats = chosen.repeats
    return tuple(tuple(head * repeats + j for head in group) for group in chosen.groups for j in range(repeats))


def _merged(x: Tensor, groups: tuple[tuple[int, ...], ...]) -> Tensor:
    """[B, H, S, d] -> [B, groups, S, members d]."""
    batch, _, length, width = x.shape
    ordered = _ordered(x, [head for group in groups for head in group])
    apart = ordered.reshape(batch, len(groups), len(groups[0]), length, width)
    return apart.transpose(2, 3).reshape(batch, len(groups), length, len(groups[0]) * width)


def _separated(x: Tensor, groups: tuple[tuple[int, ...], ...]) -> Tensor:
    """[B, groups, S, members d] -> [B, H, S, d], heads in their original order."""
    batch, count, length, _ = x.shape
    members = len(groups[0])
    apart = x.reshape(batch, count, length, members, -1).transpose(2, 3)
    order = [head for group in groups for head in group]
    heads = apart.reshape(batch, count * members, length, -1)
    return _ordered(heads, sorted(range(len(order)), key=order.__getitem__))


def _ordered(x: Tensor, order: list[int]) -> Tensor:
    """Heads in another order, by slices: their places are structure, no data."""
    if order == list(range(len(order))):
        return x
    return torch.cat([x[:, head : head + 1] for head in order], dim=1)


def _repeated(x: Tensor, repeats: int) -> Tensor:
    """Each key-value head for all of its query heads."""
    if repeats == 1:
        return x
    batch, heads, length, width = x.shape
    return x[:, :, None].expand(batch, heads, repeats, length, width).reshape(batch, heads * repeats, length, width)
