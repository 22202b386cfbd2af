"""Operands of the cases of operations, and what attention gives, computed by other means than the reference."""

from __future__ import annotations

import math

import torch


def r(*shape, scale=2.0):
    return torch.randn(*shape) * scale


def pos(*shape):
    return torch.rand(*shape) * 8 + 0.2


def far(*shape):
    """Positive and well away from 0."""
    return torch.rand(*shape) * 8 + 0.5


def massive(*shape):
    """The first position is about 64 times as large as the others."""
    return torch.cat([r(shape[0], 1, *shape[2:], scale=64), r(shape[0], shape[1] - 1, *shape[2:], scale=1)], 1)


def bit(*shape):
    return torch.rand(*shape) > 0.5


def ids(*shape, high=5):
    return torch.randint(0, high, shape)


def keep(rows, length):
    """A padding mask: of every row the first is kept."""
    mask = bit(rows, 1, 1, length)
    mask[..., 0] = True
    return mask


def attended(q, k, v, scale, bias=0.0):
    return torch.softmax(scale * q @ k.transpose(-1, -2) + bias, -1) @ v


def kept(mask):
    return torch.where(mask, 0.0, -math.inf)


def shared(weights, dim=-1):
    return weights / (weights.sum(dim, keepdim=True) + 2.0**-6)


def quad(x):
    return (x + 5) ** 2


def scores(q, k):
    return 0.4 * q @ k.transpose(-1, -2)


def rms(x, eps=1e-6):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def qkv(scale=2.0):
    return [r(2, 3, 4, 6, scale=scale), r(2, 3, 5, 6, scale=scale), r(2, 3, 5, 7)]


def key_masks():
    """q, k, v, which keys are kept, and one of them for each row."""
    return [*qkv(), keep(2, 5).reshape(2, 5).float(), torch.eye(5)[[0, 0]]]


def seen_masks():
    """Which of 5 keys 4 queries see, which are kept and the first of them, and the queries that see none of these."""
    seen = torch.ones(1, 4, 5, dtype=torch.bool).tril(1).triu(-2)
    keep = torch.tensor([[1.0, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
    blank = (~(seen & keep.bool()[:, None]).any(-1)).float()
    return [seen, keep, torch.eye(5)[[0, 2]], blank]


def seen_and_kept(q, k, v, mask, scale, cap):
    scores = cap * torch.tanh(scale * q @ k.transpose(-1, -2) / cap)
    return torch.softmax(scores + kept(mask)[:, None, None], -1).nan_to_num(0.0) @ v
