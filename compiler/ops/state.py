"""What stays in the session from one request to the next."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import RING, Attrs, Op, Tensors, Types, fail, integer
from mpcc.compiler.types import TensorType


class Keep(Op):
    """keep(value, position): the value, which is kept in a state for later requests.

    Along dimension `dim` the value holds the entries from `position` on, a whole number of shape [1] that everybody
    knows, of the state's `entries`; `bound` is the largest magnitude that the state is made for.
    """

    name = "keep"
    arity = (2, 2)
    attrs = ("bound", "dim", "entries", "state")
    secure = True
    back_ends = (RING,)

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        value, position = inputs
        dim, entries = integer(attrs, "dim"), integer(attrs, "entries")
        if not 0 <= dim < len(value.shape) or value.shape[dim] > entries:
            raise fail(self.name, f"{value.shape} does not fit {entries} entries along dimension {dim}")
        if position.shape != (1,) or position.dtype != "i64":
            raise fail(self.name, f"the position is {position}, not one whole number")
        return value

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0]


OPS: tuple[Op, ...] = (Keep(),)
