"""Pieces of softmax: the row maximum, and weights that are normalised after they have been applied."""

from __future__ import annotations

from mpcc.compiler.approximations.exp import MAX_FRAC_BITS, exp_error, exp_negative, form_for
from mpcc.compiler.approximations.newton import LEAN_BITS, LEAN_ERROR, TARGET, reciprocal, reciprocal_error
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode
from mpcc.compiler.substitutes import LEAST_SUM, QUAD_OFFSET


def row_max(b: Builder, x: RingNode, arity: int = 2) -> RingNode:
    """Maximum over the last dimension (kept with size 1), exact: a tournament of groups of `arity`.

    Groups of two take fewest comparisons; in larger ones all pairs are compared at once, which takes fewer rounds.
    """
    dim = len(x.type.shape) - 1
    while (size := x.type.shape[dim]) > 1:
        group = min(arity, size)
        count = size // group
        winner = _winner_of_two(b, x, count) if group == 2 else _winner_of_group(b, x, group, count)
        rest = b.slice(x, dim, group * count, size) if group * count < size else None
        x = winner if rest is None else b.concat([winner, rest], dim)
    return x


def _winner_of_two(b: Builder, x: RingNode, count: int) -> RingNode:
    dim = len(x.type.shape) - 1
    left, right = b.slice(x, dim, 0, count), b.slice(x, dim, count, 2 * count)
    return b.select(b.lt_zero(b.sub(left, right)), right, left)


def _winner_of_group(b: Builder, x: RingNode, group: int, count: int) -> RingNode:
    """Of each group the entry that wins every comparison (of equal ones the first), by products of bits and one sum."""
    dim = len(x.type.shape) - 1
    entries = [b.slice(x, dim, i * count, (i + 1) * count) for i in range(group)]
    pairs = [(i, j) for i in range(group) for j in range(i + 1, group)]
    less = b.lt_zero(b.concat([b.sub(entries[i], entries[j]) for i, j in pairs], dim))
    later = {pair: b.slice(less, dim, n * count, (n + 1) * count) for n, pair in enumerate(pairs)}
    earlier = b.const_sub(1.0, less, bound=1.0)
    beats = {(j, i): bit for (i, j), bit in later.items()}
    beats |= {pair: b.slice(earlier, dim, n * count, (n + 1) * count) for n, pair in enumerate(pairs)}
    factors = [b.concat([beats[i, (i + k) % group] for i in range(group)], dim) for k in range(1, group)]
    while len(factors) > 1:
        products = [b.mul(p, q, bound=1.0) for p, q in zip(factors[::2], factors[1::2], strict=False)]
        factors = products + factors[len(products) * 2 :]
    split = (*x.type.shape[:-1], group, count)
    wins = b.transpose(b.reshape(factors[0], split))
    values = b.transpose(b.reshape(b.slice(x, dim, 0, group * count), split))
    return b.reshape(b.dot(wins, values, bound=x.type.bound), (*x.type.shape[:-1], count))


def below_maximum(b: Builder, scores: RingNode, *, spread: float, arity: int = 2) -> RingNode:
    """s - max of the row, in [-spread, 0]; `spread` bounds max - min of a row."""
    top = b.expand(row_max(b, scores, arity), scores.type.shape)
    return b.sub(scores, top, bound=min(spread, 2 * scores.type.bound))


def reciprocal_format(lean: bool) -> tuple[int, float]:
    """(fractional bits, relative error asked for) of `reciprocal_of_sum`."""
    return (LEAN_BITS, LEAN_ERROR) if lean else (24, TARGET)


def reciprocal_of_sum(
    b: Builder, total: RingNode, low: float, high: float, *, lean: bool = False, weighing: str = "balanced"
) -> RingNode:
    """1 / total for a sum of exponentials in [low, high]."""
    bits, error = reciprocal_format(lean)
    return reciprocal(b, total, low=low, high=high, frac_bits=bits, error=error, lean=lean, weighing=weighing)


def softmax_error(frac_bits: int, spread: float = 48.0) -> float:
    """Bound of the absolute error of a weight, whatever the length of the row; smaller for a wider `spread`.

    Weights that are off by e (`exp_error`) move a share p = 1 / (1 + n w) by at most n e p^2, and n w p^2 is at most
    1/4: most at w = e^-3, where the error of the exponential is largest. One more e for the weight itself.
    """
    form = form_for(-spread)
    return 6 * exp_error(form, min(frac_bits + form.squarings, MAX_FRAC_BITS)) + 2.0**-frac_bits


def softmax_2relu_error(frac_bits: int) -> float:
    """Bound of the absolute error of "2relu" against its formula: its weights are exact."""
    return reciprocal_error(26) + 2.0**-frac_bits


def softmax_2quad_error(frac_bits: int) -> float:
    """Bound of the absolute error of "2quad" against its formula: an ulp counts 2^6 times in a row that sums to 0."""
    return softmax_2relu_error(frac_bits) + 2.0 ** (6 - frac_bits)


def softmax(b: Builder, scores: RingNode, *, spread: float, frac_bits: int, arity: int = 2) -> RingNode:
    """softmax over the last dimension at scale `frac_bits`; `arity` of the row maximum."""
    e = exp_negative(b, below_maximum(b, scores, spread=spread, arity=arity), lowest=-spread)
    total = b.sum(e, len(e.type.shape) - 1)
    r = reciprocal_of_sum(b, total, 0.95, 1.05 * scores.type.shape[-1])
    product = b.mul(e, b.expand(r, e.type.shape), bound=1.1)
    return b.rescale(product, frac_bits, bound=1.01)


def weights_without_exp(b: Builder, scores: RingNode, *, square: bool) -> RingNode:
    """relu(x) ("2relu") or (x + 5)^2 ("2quad"), at the scale of `scores`."""
    if square:
        shifted = b.add_const(scores, QUAD_OFFSET)
        return b.rescale(b.mul(shifted, shifted), scores.type.frac_bits)
    negative = b.lt_zero(scores)
    return b.sub(scores, b.mul(negative, scores, bound=scores.type.bound), bound=scores.type.bound)


def reciprocal_of_weights(b: Builder, total: RingNode) -> RingNode:
    """1 / (2^-6 + total) for a sum of `weights_without_exp`."""
    total = b.add_const(total, LEAST_SUM)
    return reciprocal(b, total, low=LEAST_SUM, high=total.type.bound, frac_bits=26)


def softmax_without_exp(b: Builder, scores: RingNode, *, square: bool, frac_bits: int) -> RingNode:
    """w / (2^-6 + sum w) with w of `weights_without_exp`; error `softmax_2relu_error`, `softmax_2quad_error`."""
    weights = weights_without_exp(b, scores, square=square)
    r = reciprocal_of_weights(b, b.sum(weights, len(weights.type.shape) - 1))
    product = b.mul(weights, b.expand(r, weights.type.shape), bound=1.1)
    return b.rescale(product, frac_bits, bound=1.01)
