"""The structure of a PEFT model, read off the names it gives its tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LORA = re.compile(r"(?:^|\.)(lora_\w+|modules_to_save)\.([^.]+)(?:\.|$)")


@dataclass(frozen=True)
class Peft:
    """Which tensors belong to which part of a PEFT model, all by canonical name.

    `other` holds what an adapter has besides (magnitude vectors of DoRA, biases, embeddings).
    """

    adapter: str
    base_layer: tuple[str, ...]
    lora_a: tuple[str, ...]
    lora_b: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    other: tuple[str, ...] = ()


def peft_structure(names: Sequence[str]) -> Peft | None:
    """Which of these tensors are whose; None where no adapter is among them."""
    parts: dict[str, list[str]] = {"base_layer": [], "lora_A": [], "lora_B": [], "modules_to_save": [], "other": []}
    adapters: list[str] = []
    for name in names:
        match = _LORA.search(name)
        if match:
            parts[match[1] if match[1] in parts else "other"].append(name)
            adapters.append(match[2])
        elif ".base_layer." in name:
            parts["base_layer"].append(name)
    if not adapters:
        return None
    return Peft(adapters[0], *(tuple(parts[k]) for k in ("base_layer", "lora_A", "lora_B", "modules_to_save", "other")))


def peft_json(peft: Peft | None) -> dict[str, Any] | None:
    return None if peft is None else {k: getattr(peft, k) for k in Peft.__dataclass_fields__}
