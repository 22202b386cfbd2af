"""What is done to an output before it is opened, so that less of it is told."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import Attrs, Op, Sources, Tensors, Types, fail, integer, is_float
from mpcc.compiler.types import TensorType


class Argmax(Op):
    """argmax(x [..., n]) [...]: the position of the largest entry of each row, of equal ones the first.

    A whole number as a float, since integers are never computed inside MPC.
    """

    name = "argmax"
    arity = (1, 1)
    secure = True
    whole = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if not inputs[0].shape or not inputs[0].shape[-1] or not is_float(inputs[0]):
            raise fail(self.name, f"of {inputs[0]}")
        return TensorType(inputs[0].shape[:-1], "f32")

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].argmax(-1).to(torch.float32)

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return (dim,)


class RoundNearest(Op):
    """round_nearest(x; frac_bits): the multiple of 2^-frac_bits that is nearest to x, of two the larger one."""

    name = "round_nearest"
    arity = (1, 1)
    attrs = ("frac_bits",)
    elementwise = True
    secure = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if integer(attrs, "frac_bits") < 0 or not is_float(inputs[0]):
            raise fail(self.name, f"of {inputs[0]} to {attrs['frac_bits']} fractional bits")
        return inputs[0]

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        unit = 2.0 ** integer(attrs, "frac_bits")
        return torch.floor(inputs[0] * unit + 0.5) / unit


OPS: tuple[Op, ...] = (Argmax(), RoundNearest())
