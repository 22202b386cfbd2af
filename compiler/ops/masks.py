"""What the owner of a padding mask makes of it."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import Attrs, Op, Tensors, Types, fail
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


OPS: tuple[Op, ...] = (FirstKept(),)
