"""What the owner of a padding mask makes of it."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import Attrs, Op, Tensors, Types, broadcast, fail
from mpcc.compiler.types import TensorType


class FirstKept(Op):
    """first_kept(keep) [.., S] of zeros and ones: 1 at the first 1 of each row, 0 elsewhere."""

    name = "first_kept"
    arity = (1, 1)
    whole = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if not inputs[0].shape:
            raise fail(self.name, "a mask needs a dimension")
        return inputs[0]

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        keep = inputs[0]
        return keep * (keep.cumsum(-1) == 1).to(keep.dtype)


class BlankRows(Op):
    """blank_rows(keep, seen) [B, S]: 1 for queries that see no kept key, else 0; keep [B, T], seen [1 or B, S, T]."""

    name = "blank_rows"
    arity = (2, 2)
    whole = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        keep, seen = inputs
        if len(keep.shape) != 2 or len(seen.shape) != 3 or seen.shape[2] != keep.shape[1]:
            raise fail(self.name, f"keep {keep} and seen {seen}")
        return TensorType((*broadcast(self.name, keep.shape[:1], seen.shape[:1]), seen.shape[1]), keep.dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        keep, seen = inputs
        return torch.logical_not((seen.bool() & keep.bool().unsqueeze(1)).any(-1)).to(keep.dtype)


OPS: tuple[Op, ...] = (FirstKept(), BlankRows())
