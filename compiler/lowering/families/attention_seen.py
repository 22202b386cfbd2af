"""Attention in which everybody knows which keys a query may see: causal models, sliding windows, decoding with a cache.

Queries are taken in blocks, and a block is multiplied with the keys between the first and the last that one of its
queries sees: of a causal model little more than half of the scores is ever computed. Scores of all blocks stand in one
vector behind one another, so that the exponential is one operation and takes the rounds of one. What is left in a block
that its query does not see is multiplied by a public 0, which is local and exact whatever the score was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpcc.compiler.approximations import softmax as forms
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, int_attr, lowers, number_attr
from mpcc.compiler.lowering.families.attention import (
    Groups,
    divided,
    exponentials,
    grouped,
    kept_values,
    masked_keys,
    needs_no_maximum,
    scaled,
    sums_below_bound,
)
from mpcc.compiler.lowering.families.soft_cap import capped
from mpcc.compiler.ring.ir import RingNode

MOST_BLOCKS = 8  # of queries: 8 compute 9/16 of a triangle's square, twice as many 17/32


@dataclass(frozen=True)
class Block:
    """Queries [start, stop) and the keys [first, last) that one of them may see."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.stop - self.start, self.last - self.first


def blocks_of(queries: int, keys: int, low: int, high: int) -> list[Block]:
    """Cover the keys i + low .. i + high of all queries i; one block where that leaves nothing out."""
    size = -(-queries // MOST_BLOCKS)
    found = []
    for start in range(0, queries, size):
        stop = min(start + size, queries)
        first, last = max(0, start + low), min(keys, stop + high)
        first = min(first, keys - 1)
        found.append(Block(start, stop, first, max(last, first + 1)))
    whole = Block(0, queries, min(b.first for b in found), max(b.last for b in found))
    return [whole] if all(b.shape[1] == whole.shape[1] for b in found) else found


@dataclass(frozen=True)
class _Packed:
    """Between scores [.., G rows, keys] of single blocks and one vector [.., n] of them all."""

    ctx: Context
    groups: Groups
    blocks: Sequence[Block]

    def pack(self, parts: Sequence[RingNode]) -> RingNode:
        b = self.ctx.b
        flat = [b.reshape(p, (*p.type.shape[:-2], math.prod(p.type.shape[-2:]))) for p in parts]
        return b.concat(flat, len(flat[0].type.shape) - 1)

    def unpack(self, packed: RingNode) -> list[RingNode]:
        b, last = self.ctx.b, len(packed.type.shape) - 1
        parts, place = [], 0
        for block in self.blocks:
            rows, keys = max(self.groups.size, 1) * block.shape[0], block.shape[1]
            piece = b.slice(packed, last, place, place + rows * keys)
            parts.append(b.reshape(piece, (*packed.type.shape[:-1], rows, keys)))
            place += rows * keys
        return parts

    def joined(self, parts: Sequence[RingNode]) -> RingNode:
        """[.., G rows, n] of all blocks as [.., G, S, n]."""
        rows = [self.groups.apart(self.ctx.b, p) for p in parts]
        return self.ctx.b.concat(rows, len(rows[0].type.shape) - 2)

    def bias(self, bias: RingNode) -> RingNode:
        """What broadcasts to [.., G, S, T], packed."""
        b, parts = self.ctx.b, []
        rows, keys = len(bias.type.shape) - 2, len(bias.type.shape) - 1
        for block in self.blocks:
            wide = bias
            for dim, start, stop in ((rows, block.start, block.stop), (keys, block.first, block.last)):
                wide = b.slice(wide, dim, start, stop) if bias.type.shape[dim] > 1 else wide
            parts.append(self.groups.rows(b, b.expand(wide, (*self.groups.all, *block.shape))))
        return self.pack(parts)

    def seen(self, seen: RingNode) -> list[RingNode]:
        """[1 or B, S, T], public, as each block's [.., G rows, keys]."""
        b, parts = self.ctx.b, []
        ones = (1,) * (len(self.groups.all) - 1)
        for block in self.blocks:
            piece = b.slice(b.slice(seen, 1, block.start, block.stop), 2, block.first, block.last)
            piece = b.reshape(piece, (piece.type.shape[0], *ones, *block.shape))
            parts.append(self.groups.rows(b, b.expand(piece, (*self.groups.all, *block.shape))))
        return parts


@lowers("attention_seen")
def lower_attention_seen(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """softmax(scale Q K^T) V over seen and kept keys; a masked key gives way to the anchor, as in `attention`."""
    b = ctx.b
    groups, query, key, value = grouped(ctx, inputs)
    keep, bound = None, value.type.bound
    biased = node.attr("bias") is not None
    if len(inputs) - biased > 4:
        key, keep = masked_keys(ctx, key, inputs[4], inputs[5])
    blocks = blocks_of(query.type.shape[-2], key.type.shape[-2], int_attr(node, "low"), int_attr(node, "high"))
    packed = _Packed(ctx, groups, blocks)
    seen = packed.seen(inputs[3])
    scores = capped(ctx, node, _scores(ctx, node, packed, query, key, seen))
    if biased:
        bias = b.mul(packed.bias(ctx.b.rescale(inputs[-1], scores.type.frac_bits)), packed.pack(seen))
        scores = b.add(scores, bias, bound=ctx.rounded_up(ctx.statistic(node, "bent_abs"), steps=2))
    weights, sums = _weights(ctx, node, packed, scores, seen)
    applied, total = _applied(ctx, packed, packed.unpack(b.mul(weights, packed.pack(seen), bound=1.01)), value, keep)
    if keep is not None:
        total, sums = _with_blank_rows(ctx, groups, total, inputs[6], sums)
    return b.reshape(divided(ctx, node, applied, total, sums, bound), node.type.shape)


def _scores(
    ctx: Context, node: Node, packed: _Packed, query: RingNode, key: RingNode, seen: Sequence[RingNode]
) -> RingNode:
    """scale Q K^T of all blocks, packed; 0 where a key is not seen."""
    b, rank = ctx.b, len(query.type.shape)
    bound = ctx.rounded_up(ctx.statistic(node, "score_abs"), steps=2) / abs(number_attr(node, "scale"))
    parts = []
    for block, mask in zip(packed.blocks, seen, strict=True):
        rows = packed.groups.rows(b, b.slice(query, rank - 2, block.start, block.stop))
        columns = b.transpose(b.slice(key, len(key.type.shape) - 2, block.first, block.last))
        parts.append(b.mul(b.matmul(rows, columns, bound=bound), mask, bound=bound))
    return scaled(ctx, node, packed.pack(parts))


def _weights(
    ctx: Context, node: Node, packed: _Packed, scores: RingNode, seen: Sequence[RingNode]
) -> tuple[RingNode, tuple[float, float]]:
    """(e^(score - maximum of the row, or their bound), packed, and the interval of a row's sum of them)."""
    b, top = ctx.b, scores.type.bound
    keys = max(block.shape[1] for block in packed.blocks)
    if needs_no_maximum(top, ctx.statistic(node, "mean_min")):
        weights = exponentials(ctx, node, b.add_const(scores, -top, bound=2 * top), -2 * top)
        return weights, sums_below_bound(ctx, node, top, 1, keys)
    spread = ctx.rounded_up(ctx.statistic(node, "spread"))
    lines = []
    for part, mask in zip(packed.unpack(scores), seen, strict=True):
        f = part.type.frac_bits
        far = b.mul_int(b.add_const(mask, -1.0, bound=1.0), math.ceil(2 * top) << f, f)  # 0, or below every score
        lowered = b.add(part, far)
        lines.append(b.expand(forms.row_max(b, lowered, ctx.settings.row_maximum_arity), part.type.shape))
    away = b.sub(scores, packed.pack(lines))
    away = b.mul(away, packed.pack(seen), bound=min(spread, 2 * top))
    return exponentials(ctx, node, away, -away.type.bound), (0.95, 1.05 * keys)


def _applied(
    ctx: Context, packed: _Packed, weights: Sequence[RingNode], value: RingNode, keep: RingNode | None
) -> tuple[RingNode, RingNode]:
    """(weights V, sums of weights), over kept keys, as [.., G, S, n]."""
    b, last = ctx.b, len(value.type.shape) - 1
    width, largest = value.type.shape[-1], max(value.type.bound, 1.0)
    if keep is not None:
        value = b.concat(list(kept_values(ctx, value, keep)), last)
    products = []
    for block, part in zip(packed.blocks, weights, strict=True):
        piece = b.slice(value, last - 1, block.first, block.last)
        products.append(b.matmul(part, piece, bound=block.shape[1] * part.type.bound * largest))
    applied = packed.joined(products)
    if keep is None:
        return applied, packed.joined([b.sum(part, len(part.type.shape) - 1) for part in weights])
    last = len(applied.type.shape) - 1
    return b.slice(applied, last, 0, width), b.slice(applied, last, width, width + 1)


def _with_blank_rows(
    ctx: Context, groups: Groups, total: RingNode, blank: RingNode, sums: tuple[float, float]
) -> tuple[RingNode, tuple[float, float]]:
    """Sums that are never 0: a row that may see no kept key gets one that is within the interval."""
    b, (batch, queries) = ctx.b, blank.type.shape
    low, high = sums
    least = max(low, 1.0) if high >= 1.0 else low
    column = b.reshape(blank, (batch, *(1,) * (len(groups.all) - 1), queries, 1))
    lifted = b.mul_int(column, math.ceil(least * 2.0**total.type.frac_bits), total.type.frac_bits)
    total = b.add(total, b.expand(lifted, total.type.shape))
    return total, (low, high + least)
