"""Attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpcc.compiler.approximations import softmax as forms
from mpcc.compiler.approximations.exp import LEAN_TOLERANCE, MAX_FRAC_BITS, TOLERANCE, exp_negative, form_for
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.context import Context, lowers, number_attr
from mpcc.compiler.lowering.families.elementwise import times
from mpcc.compiler.lowering.families.exponentials import note_exp, note_reciprocal
from mpcc.compiler.lowering.families.soft_cap import capped
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

NEGLIGIBLE = 16  # e^-16 of the largest weight is as good as none
LEAN_EXP_BITS, LEAN_SCORE_BITS = 14, 12
TIGHT_TOLERANCE = 8e-4
NO_MAX_SPREAD = 8.0  # scores that span less need no row maximum,
LEAST_MEAN_WEIGHT = 2.0**-6  # where their exponentials are not much smaller than this on average


@dataclass(frozen=True)
class Groups:
    """q [.., G, S, d] of groups of heads that share k and v [.., T, d]: a group's queries are rows of one matrix.

    `lead` are the dimensions before the group's, `size` is 0 where heads share nothing: then q is [.., S, d].
    """

    lead: tuple[int, ...]
    size: int

    @property
    def all(self) -> tuple[int, ...]:
        """The leading dimensions of queries."""
        return (*self.lead, self.size) if self.size else self.lead

    def rows(self, b: Builder, x: RingNode) -> RingNode:
        """[.., G, S, n] -> [.., G S, n]."""
        return b.reshape(x, (*self.lead, self.size * x.type.shape[-2], x.type.shape[-1])) if self.size else x

    def apart(self, b: Builder, x: RingNode) -> RingNode:
        """[.., G S, n] -> [.., G, S, n]."""
        return b.reshape(x, (*self.all, x.type.shape[-2] // self.size, x.type.shape[-1])) if self.size else x


def grouped(ctx: Context, inputs: Sequence[RingNode]) -> tuple[Groups, RingNode, RingNode, RingNode]:
    """(how heads are grouped, q [.., G, S, d], k [.., T, d], v [.., T, e]) of q, k, v that broadcast."""
    b = ctx.b
    query, key, value = (ctx.at_scale(x) for x in inputs[:3])
    shapes = [x.type.shape[:-2] for x in (query, key, value)]
    rank = max(map(len, shapes))
    wide = [(1,) * (rank - len(s)) + s for s in shapes]
    lead = tuple(max(sizes) for sizes in zip(*wide, strict=True))
    shared = rank > 1 and lead[-1] > 1 and wide[1][-1] == wide[2][-1] == 1
    groups = Groups(lead[:-1], lead[-1]) if shared else Groups(lead, 0)

    def of_group(x: RingNode, own: tuple[int, ...]) -> RingNode:
        x = b.reshape(x, (*own[:-1], *x.type.shape[-2:])) if shared else x
        return b.expand(x, (*groups.lead, *x.type.shape[-2:]))

    query = b.expand(query, (*lead, *query.type.shape[-2:]))
    return groups, query, of_group(key, wide[1]), of_group(value, wide[2])


@lowers("attention")
def lower_attention(ctx: Context, node: Node, inputs: Sequence[RingNode]) -> RingNode:
    """softmax(scale Q K^T + mask) V for q, k, v [..., S, d].

    The weights are normalised after they have been applied, on S x d instead of S x S elements. With mask="key"
    (keep and anchor per key, passes/graph/prepare_masks.py) a masked key is replaced by the anchor, a key that is kept:
    its score then lies in the row's own range, and it is left out of numerator and denominator, so nothing has to be
    compared, clipped or made very negative.
    """
    b = ctx.b
    groups, query, key, value = grouped(ctx, inputs)
    mask = str(node.attr("mask", "none"))
    keep: RingNode | None = None
    if mask == "key":
        key, keep = masked_keys(ctx, key, inputs[3], inputs[4])
    scores = capped(ctx, node, scaled_scores(ctx, node, groups.rows(b, query), key))
    if mask in ("keep", "additive"):
        scores = _add_mask(ctx, groups, scores, inputs[3], mask)
    keys = scores.type.shape[-1]
    least = ctx.statistic(node, "lse_min") - math.log(keys)
    if mask in ("none", "key") and needs_no_maximum(scores.type.bound, least):
        top = scores.type.bound
        weights = exponentials(ctx, node, b.add_const(scores, -top, bound=2 * top), -2 * top)
        fewest = keys if mask == "none" else 1
        result = _apply(ctx, node, weights, value, keep, sums_below_bound(ctx, node, top, fewest, keys))
    else:
        weights = _weights(ctx, node, scores, masked=mask in ("keep", "additive"))
        result = _apply(ctx, node, weights, value, keep, (0.95, 1.05 * value.type.shape[-2]))
    return b.reshape(result, node.type.shape)


def needs_no_maximum(bound: float, least_mean: float) -> bool:
    """Whether e^(score - bound) keeps enough bits in every row without knowing the row's maximum.

    `least_mean` is the log of the least mean of a row's e^score.
    """
    return 2 * bound <= NO_MAX_SPREAD and math.exp(least_mean - bound) >= LEAST_MEAN_WEIGHT


def sums_below_bound(ctx: Context, node: Node, top: float, fewest: int, keys: int) -> tuple[float, float]:
    """Interval of the sum of e^(score - top) over a row of `fewest` to `keys` scores within top.

    From calibrated sums, within what the bound proves.
    """
    low, high = (math.exp(ctx.statistic(node, key) - top) for key in ("lse_min", "lse_max"))
    low = 2.0 ** math.floor(math.log2(low / ctx.settings.variance_margin))
    high = 2.0 ** math.ceil(math.log2(high * ctx.settings.variance_margin))
    return max(low, 0.95 * fewest * math.exp(-2 * top)), min(high, 1.05 * keys)


def scaled_scores(ctx: Context, node: Node, query: RingNode, key: RingNode) -> RingNode:
    """scale * Q K^T at the working scale; the factor costs nothing beside the truncation that is there anyway."""
    bound = ctx.rounded_up(ctx.statistic(node, "score_abs"), steps=2)
    return scaled(ctx, node, ctx.b.matmul(query, ctx.b.transpose(key), bound=bound / abs(number_attr(node, "scale"))))


def scaled(ctx: Context, node: Node, raw: RingNode) -> RingNode:
    """scale * a product of queries and keys, at the working scale."""
    bound = ctx.rounded_up(ctx.statistic(node, "score_abs"), steps=2)
    scores = times(ctx, raw, number_attr(node, "scale"))
    return ctx.b.rescale(scores, min(ctx.f, LEAN_SCORE_BITS) if ctx.settings.lean else ctx.f, bound=bound)


def masked_keys(ctx: Context, key: RingNode, keep: RingNode, anchor: RingNode) -> tuple[RingNode, RingNode]:
    """(keys with every masked one replaced by the anchor, keep as [batch, 1.., S, 1]); keep, anchor are [batch, S]."""
    b = ctx.b
    batch, length = keep.type.shape
    ones = (1,) * (len(key.type.shape) - 3)
    row = b.expand(b.reshape(anchor, (batch, *ones, 1, length)), (*key.type.shape[:-2], 1, length))
    anchor_key = b.matmul(row, key, bound=key.type.bound)
    keep_column = b.reshape(keep, (batch, *ones, length, 1))
    base = b.expand(anchor_key, key.type.shape)
    moved = b.mul(b.expand(keep_column, key.type.shape), b.sub(key, base))
    return b.add(base, moved, bound=key.type.bound), keep_column


def _add_mask(ctx: Context, groups: Groups, scores: RingNode, mask: RingNode, kind: str) -> RingNode:
    """Scores with masked entries below every kept one, for masks that differ between queries."""
    b = ctx.b
    queries, keys = scores.type.shape[-2] // max(groups.size, 1), scores.type.shape[-1]
    mask = groups.rows(b, b.expand(mask, (*groups.all, queries, keys)))
    far = math.ceil(2 * scores.type.bound) + NEGLIGIBLE  # below every kept score by so much at least
    f = scores.type.frac_bits
    if kind == "keep":
        lowered = b.mul_int(b.add_const(mask, -1.0), far << f, f)  # 0 or -far, integers
        return b.add(scores, lowered)
    return b.add(scores, ctx.at_scale(mask, f))


def _weights(ctx: Context, node: Node, scores: RingNode, *, masked: bool) -> RingNode:
    """e^(score - row maximum), not normalised."""
    b, arity = ctx.b, ctx.settings.row_maximum_arity
    spread = ctx.rounded_up(ctx.statistic(node, "spread"))
    if not masked:
        return exponentials(ctx, node, forms.below_maximum(b, scores, spread=spread, arity=arity), -spread)
    shifted = b.sub(scores, b.expand(forms.row_max(b, scores, arity), scores.type.shape))
    return exponentials(ctx, node, shifted, -shifted.type.bound)


def exponentials(ctx: Context, node: Node, shifted: RingNode, lowest: float) -> RingNode:
    """e^shifted in the format of the profile."""
    tolerance = TIGHT_TOLERANCE if ctx.settings.tight else LEAN_TOLERANCE if ctx.settings.lean else TOLERANCE
    max_bits = LEAN_EXP_BITS if ctx.settings.lean else MAX_FRAC_BITS
    note_exp(ctx, node, form_for(lowest, tolerance), min(shifted.type.frac_bits, max_bits), max_bits)
    return exp_negative(ctx.b, shifted, lowest=lowest, tolerance=tolerance, max_bits=max_bits)


def _apply(
    ctx: Context, node: Node, weights: RingNode, value: RingNode, keep: RingNode | None, sums: tuple[float, float]
) -> RingNode:
    """(weights V) / (sum of weights in the interval `sums`), both over kept keys only, from one product."""
    b = ctx.b
    length = value.type.shape[-2]
    if keep is None:
        applied = b.matmul(weights, value, bound=length * value.type.bound * 1.01)
        total = b.sum(weights, len(weights.type.shape) - 1)
    else:
        applied, total = kept_sums(ctx, weights, value, keep)
    return divided(ctx, node, applied, total, sums, value.type.bound)


def divided(
    ctx: Context, node: Node, applied: RingNode, total: RingNode, sums: tuple[float, float], bound: float
) -> RingNode:
    """applied / total for a total in the interval `sums`; no quotient is larger than `bound`."""
    b = ctx.b
    note_reciprocal(ctx, node, sums, ctx.settings.lean)
    r = forms.reciprocal_of_sum(b, total, *sums, lean=ctx.settings.lean, weighing=ctx.settings.reciprocal_start)
    numerator = b.rescale(applied, ctx.f)
    limit = 2.0 ** math.ceil(math.log2(bound * 1.02))
    return b.rescale(b.mul(numerator, b.expand(r, numerator.type.shape), bound=limit), ctx.f, bound=ctx.bound(node))


def kept_sums(ctx: Context, weights: RingNode, value: RingNode, keep: RingNode) -> tuple[RingNode, RingNode]:
    """(weights V, weights 1) over kept keys: one secure product; where the mask is public, the second is local."""
    b = ctx.b
    value, ones = kept_values(ctx, value, keep)
    length, width = value.type.shape[-2:]
    largest = length * weights.type.bound
    if ones.type.public:
        return b.matmul(weights, value, bound=largest * value.type.bound), b.matmul(weights, ones, bound=largest)
    last = len(value.type.shape) - 1
    both = b.matmul(weights, b.concat([value, ones], last), bound=largest * max(value.type.bound, 1.0))
    return b.slice(both, last, 0, width), b.slice(both, last, width, width + 1)


def kept_values(ctx: Context, value: RingNode, keep: RingNode) -> tuple[RingNode, RingNode]:
    """(V, ones [.., T, 1]), both 0 for masked keys; keep is [batch, 1.., T, 1]."""
    b = ctx.b
    kept = b.mul(b.expand(keep, value.type.shape), value, bound=value.type.bound)
    return kept, b.mul_int(b.expand(keep, (*value.type.shape[:-1], 1)), 2**ctx.f, ctx.f)
