"""Forms of GELU and softmax that are cheap in MPC; they change the model, which has to be trained with them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.marill.attention import SOFTMAX_FORMS
from mpcc.marill.families import first_trained, layers_of
from mpcc.marill.structure import GELU_FORMS, change


def approximate(
    model: nn.Module, gelu: str | None = None, softmax: str | None = None, layers: Sequence[int] | None = None
) -> list[int]:
    """Replace GELU and softmax in the private layers, in place.

    Args:
        model: a Hugging Face model, PEFT-wrapped or not.
        gelu: "quad" or None.
        softmax: "2quad", "2relu" or None.
        layers: which layers; by default all from the first one that learns.

    Returns:
        The layers that were changed.

    Raises:
        MpccError: an unknown form, or an activation that is not GELU.
    """
    for what, form, known in (("gelu", gelu, GELU_FORMS), ("softmax", softmax, SOFTMAX_FORMS)):
        if form is not None and form not in known:
            raise MpccError(f"unknown form {what}={form}", todo=f"choose from: {', '.join(known)}")
    chosen = list(layers) if layers is not None else list(range(first_trained(model), len(layers_of(model))))
    changes = {key: form for key, form in (("gelu", gelu), ("softmax", softmax)) if form is not None}
    if changes:
        for layer in chosen:
            change(model, layer, **changes)
    return chosen
