"""Layer freezing: the embeddings and the first layers stay as in the open checkpoint, so the client evaluates them."""

from __future__ import annotations

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.marill.families import body_of, family_of, layers_of


def frozen_count(model: nn.Module, fraction: float | None = None, layers: int | None = None) -> int:
    """The number of layers to freeze: `layers`, or `fraction` of all, rounded to the nearest.

    Raises:
        MpccError: both or neither are given, or the number is out of range.
    """
    total = len(layers_of(model))
    if (fraction is None) == (layers is None):
        raise MpccError("give either the fraction or the number of frozen layers")
    if fraction is not None and not 0.0 <= fraction <= 1.0:
        raise MpccError(f"the frozen fraction is {fraction:g}, which is not between 0 and 1")
    count = layers if layers is not None else int(fraction * total + 0.5)  # type: ignore[operator]
    if not 0 <= count <= total:
        raise MpccError(f"{count} layers cannot be frozen: the model has {total}")
    return count


def freeze_layers(model: nn.Module, fraction: float | None = None, layers: int | None = None) -> int:
    """Freeze the embeddings and the first layers in place; the number of frozen layers is returned.

    The embeddings are frozen even with no layer: a look-up in a private table costs MPC a product with a one-hot
    matrix of tokens x vocabulary. A head whose weight is tied to the embeddings is frozen with them.

    Raises:
        MpccError: see `frozen_count`.
    """
    count, body, family = frozen_count(model, fraction, layers), body_of(model), family_of(model)
    for module in [*(body.get_submodule(name) for name in family.embeddings), *layers_of(model)[:count]]:
        module.requires_grad_(False)
    return count
