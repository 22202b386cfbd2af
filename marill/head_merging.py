"""Head merging: m heads become one that is m times as wide, so that softmax has m times fewer elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import plain
from mpcc.marill.families import attention_of, first_trained, heads_of, layers_of
from mpcc.marill.structure import change, structure_of

GROUPINGS = ("similar", "adjacent")
Groups = tuple[tuple[int, ...], ...]


def merge_heads(
    model: nn.Module,
    factor: int,
    calibration: Sequence[Mapping[str, Tensor]] | None = None,
    grouping: str = "similar",
    layers: Sequence[int] | None = None,
) -> dict[int, Groups]:
    """Merge the heads of the private layers, `factor` at a time, in place; parameters do not change.

    Args:
        model: a Hugging Face model, PEFT-wrapped or not.
        factor: heads per merged head; it must divide the number of (key-value) heads.
        calibration: model inputs on which the attention patterns are compared; needed for "similar".
        grouping: "similar" puts heads together that attend alike, "adjacent" neighbours.
        layers: which layers; by default all from the first one that learns.

    Returns:
        The groups of key-value heads by layer.

    Raises:
        MpccError: the factor does not divide, a layer is merged already, or calibration inputs are missing.
    """
    _, key_heads = heads_of(model)
    if factor < 1 or key_heads % factor:
        kind = "heads" if key_heads == heads_of(model)[0] else "key-value heads"
        raise MpccError(f"{key_heads} {kind} cannot be merged {factor} at a time: {factor} does not divide {key_heads}")
    if grouping not in GROUPINGS:
        raise MpccError(f"unknown grouping {grouping!r} of heads", todo=f"choose one of: {', '.join(GROUPINGS)}")
    chosen = list(layers) if layers is not None else list(range(first_trained(model), len(layers_of(model))))
    if merged := [layer for layer in chosen if (s := structure_of(model).get(layer)) and s.groups]:
        raise MpccError(f"the heads of layer {merged[0]} are merged already")
    if factor == 1:
        return {layer: tuple((head,) for head in range(key_heads)) for layer in chosen}
    groups = {layer: _adjacent(key_heads, factor) for layer in chosen}
    if grouping == "similar":
        if not calibration:
            raise MpccError("heads are grouped by similarity on calibration inputs, but none are given")
        groups = {layer: similar_groups(s, factor) for layer, s in similarities(model, calibration, chosen).items()}
    for layer, found in groups.items():
        change(model, layer, groups=found)
    return groups


def _adjacent(heads: int, factor: int) -> Groups:
    return tuple(tuple(range(start, start + factor)) for start in range(0, heads, factor))


def similar_groups(similarity: Tensor, factor: int) -> Groups:
    """Equal groups of `factor` heads with large sums of `similarity` [heads, heads] inside.

    Greedy: each group starts from the most similar pair that is left and takes the best head in turn; then heads of
    two groups are exchanged as long as that makes the sum larger. Every step is deterministic.
    """
    left = list(range(len(similarity)))
    groups: list[list[int]] = []
    while left:
        pairs = combinations(left, 2) if factor > 1 else [(left[0],)]
        group = list(max(pairs, key=lambda p: float(similarity[p[0], p[-1]])))
        while len(group) < factor:
            rest = [h for h in left if h not in group]
            group.append(max(rest, key=lambda h: float(similarity[h, group].sum())))
        left = [h for h in left if h not in group]
        groups.append(group)
    while _exchange(groups, similarity):
        pass
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def _exchange(groups: list[list[int]], similarity: Tensor) -> bool:
    """Swap the first two heads of different groups whose exchange gains; False if there are none."""
    for one, two in combinations(groups, 2):
        for i, a in enumerate(one):
            for j, b in enumerate(two):
                others, others_two = [h for h in one if h != a], [h for h in two if h != b]
                before = similarity[a, others].sum() + similarity[b, others_two].sum()
                after = similarity[b, others].sum() + similarity[a, others_two].sum()
                if float(after - before) > 1e-6:
                    one[i], two[j] = b, a
                    return True
    return False


@torch.no_grad()
def similarities(
    model: nn.Module, calibration: Sequence[Mapping[str, Tensor]], layers: Sequence[int]
) -> dict[int, Tensor]:
    """Layer -> [heads, heads] similarity of attention patterns, from -1 (disjoint) to 0 (equal).

    The similarity of two heads is minus half the L1 distance of their attention rows, averaged over all rows of all
    calibration inputs; for grouped key-value heads, averaged over their query heads in turn.
    """
    heads, key_heads = heads_of(model)
    totals = {layer: torch.zeros(key_heads, key_heads, dtype=torch.float64) for layer in layers}
    rows = 0
    for inputs in calibration:
        patterns = attention_patterns(model, inputs, layers)
        mask = inputs.get("attention_mask")
        for layer, found in patterns.items():
            kept = found if mask is None else found.transpose(0, 1)[:, mask.bool()][None]
            flat = kept.transpose(0, 1).reshape(key_heads, heads // key_heads, -1, found.shape[-1])
            totals[layer] -= 0.5 * torch.cdist(flat.flatten(1).double(), flat.flatten(1).double(), p=1)
            count = flat.shape[1] * flat.shape[2]
        rows += count
    return {layer: total / max(rows, 1) for layer, total in totals.items()}


def attention_patterns(model: nn.Module, inputs: Mapping[str, Tensor], layers: Sequence[int]) -> dict[int, Tensor]:
    """Layer -> attention weights [B, heads, S, S] of the unmerged model on one batch."""
    inner = plain(model)
    before, training = inner.config._attn_implementation, model.training  # type: ignore[union-attr]
    found: dict[int, Tensor] = {}
    handles = []
    for layer in layers:

        def keep(module: nn.Module, args: object, output: tuple[Tensor, Tensor], layer: int = layer) -> None:
            found[layer] = output[1]

        handles.append(attention_of(model, layer).register_forward_hook(keep))
    inner.set_attn_implementation("eager")  # type: ignore[operator]
    model.eval()
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
        inner.set_attn_implementation(before)  # type: ignore[operator]
        model.train(training)
    return found
