"""What the names of tensors tell: wrappers around a checkpoint's names, and parts of adapters."""

from __future__ import annotations

import re

# What wrappers put around a checkpoint's names.
_WRAPPING = re.compile(r"(^|\.)(base_model\.model|base_layer|modules_to_save\.[^.]+|original_module)(?=\.|$)")
_ADAPTER = re.compile(r"(^|\.)(lora_|modules_to_save\.)")


def unwrapped(name: str) -> str:
    """The name as the checkpoint has it."""
    return _WRAPPING.sub("", name).lstrip(".")


def is_adapter(name: str) -> bool:
    """Whether a tensor is part of a PEFT adapter."""
    return _ADAPTER.search(name) is not None
