"""Scores and logits that are kept below a cap, smoothly."""

from __future__ import annotations

from typing import ClassVar

import torch

from mpcc.compiler.ops.activations import Unary
from mpcc.compiler.ops.base import Attrs, Op, Statistics, Tensors, number


class SoftCap(Unary):
    """soft_cap(x; cap) = cap tanh(x / cap)."""

    name = "soft_cap"
    attrs = ("cap",)
    statistics: ClassVar[tuple[str, ...]] = ("argument_abs",)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        cap = number(attrs, "cap")
        return torch.tanh(inputs[0] / cap) * cap

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        return {"argument_abs": float(inputs[0].abs().max())}


OPS: tuple[Op, ...] = (SoftCap(),)
