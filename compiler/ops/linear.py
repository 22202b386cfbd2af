"""Matrix products."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Converter,
    Op,
    Sources,
    Tensors,
    Types,
    Value,
    aligned,
    broadcast,
    fail,
    only,
    promote,
)
from mpcc.compiler.types import TensorType


def _linear(b: Builder, a: Args) -> Value:
    only(len(a["weight"].shape) == 2, "a linear layer's weight must have two dimensions")
    inputs = [a["input"], a["weight"]] + ([] if a["bias"] is None else [a["bias"]])
    return b.emit("linear", inputs)


def _addmm(b: Builder, a: Args) -> Value:
    """addmm(bias, x, W) = x W + bias, as GPT-2's Conv1D has it: a linear layer with the weight transposed."""
    only(a["alpha"] == 1 and a["beta"] == 1, "addmm with alpha or beta other than 1")
    bias, x, weight = a["self"], a["mat1"], a["mat2"]
    if bias.shape == (weight.shape[1],):
        return b.emit("linear", [x, b.emit("permute", [weight], dims=(1, 0)), bias])
    return b.emit("add", [b.emit("matmul", [x, weight]), bias])


def _matmul(left: str, right: str) -> Converter:
    def convert(b: Builder, a: Args) -> Value:
        x, y = a[left], a[right]
        only(bool(x.shape and y.shape), "matmul of a scalar")
        row, column = len(x.shape) == 1, len(y.shape) == 1
        x = b.emit("reshape", [x], shape=(1, *x.shape)) if row else x
        y = b.emit("reshape", [y], shape=(*y.shape, 1)) if column else y
        z = b.emit("matmul", [x, y])
        if not (row or column):
            return z
        shape = z.shape[: len(z.shape) - 2] + (() if row else (z.shape[-2],)) + (() if column else (z.shape[-1],))
        return b.emit("reshape", [z], shape=shape)

    return convert


def _baddbmm(b: Builder, a: Args) -> Value:
    product = b.emit("matmul", [a["batch1"], a["batch2"]])
    if a["alpha"] != 1:
        product = b.emit("scale", [product], factor=float(a["alpha"]))
    if a["beta"] == 0:
        return product
    bias = a["self"] if a["beta"] == 1 else b.emit("scale", [a["self"]], factor=float(a["beta"]))
    return b.emit("add", [product, bias])


class Linear(Op):
    """linear(x, W[, b]) = x W^T + b, with x [..., in], W [out, in], b [out]."""

    name = "linear"
    arity = (2, 3)
    secure = True
    aten = {"aten.linear.default": _linear, "aten.addmm.default": _addmm}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        x, w = inputs[0], inputs[1]
        if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
            raise fail(self.name, f"x {x} does not fit W {w}")
        if len(inputs) == 3 and inputs[2].shape != (w.shape[0],):
            raise fail(self.name, f"b {inputs[2]} does not fit W {w}")
        return TensorType((*x.shape[:-1], w.shape[0]), promote(*(t.dtype for t in inputs)))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.nn.functional.linear(*inputs)

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """Rows of x, or rows of W with their biases."""
        rows = dim < len(inputs[0].shape) - 1
        return ((dim, None, None) if rows else (None, 0, 0))[: len(inputs)]


class LinearDiagonal(Op):
    """linear_diagonal(x, r, W[, b]) = x A^T + r D^T + b: the last `block` columns of W hold the block-diagonal D.

    x [..., in], r [..., out], W [out, in + block], b [out]; row i of D has W[i, in:] at the columns of its block of
    `block` rows. For a residual that is scaled by gamma it is a diagonal, kept with so few zeros.
    """

    name = "linear_diagonal"
    arity = (3, 4)
    secure = True
    attrs = ("block",)

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        x, r, w = inputs[:3]
        block = attrs["block"]
        if len(w.shape) != 2 or not x.shape or not isinstance(block, int) or w.shape[0] % block:
            raise fail(self.name, f"W {w} in blocks of {block}")
        if r.shape != (*x.shape[:-1], w.shape[0]) or x.shape[-1] + block != w.shape[1]:
            raise fail(self.name, f"x {x} and r {r} do not fit W {w}")
        if len(inputs) == 4 and inputs[3].shape != (w.shape[0],):
            raise fail(self.name, f"b {inputs[3]} does not fit W {w}")
        return TensorType(r.shape, promote(*(t.dtype for t in inputs)))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        x, r, w = inputs[:3]
        block = attrs["block"]
        assert isinstance(block, int)
        blocks = w[:, x.shape[-1] :].reshape(-1, block, block)
        own = torch.einsum("...bt,bot->...bo", r.reshape(*r.shape[:-1], -1, block), blocks)
        y = torch.nn.functional.linear(x, w[:, : x.shape[-1]], *inputs[3:])
        return y + own.reshape(r.shape)

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """Rows of x and r."""
        rows = dim < len(inputs[0].shape) - 1
        return (dim, dim, None, None)[: len(inputs)] if rows else None


class MatMul(Op):
    """matmul(a, b) = a b over the last two dimensions, the leading ones broadcast: [..., n, k] [..., k, m]."""

    name = "matmul"
    arity = (2, 2)
    secure = True
    aten = {
        "aten.matmul.default": _matmul("self", "other"),
        "aten.mm.default": _matmul("self", "mat2"),
        "aten.bmm.default": _matmul("self", "mat2"),
        "aten.mv.default": _matmul("self", "vec"),
        "aten.dot.default": _matmul("self", "tensor"),
        "aten.baddbmm.default": _baddbmm,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        a, b = inputs
        if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
            raise fail(self.name, f"{a} does not fit {b}")
        lead = broadcast(self.name, a.shape[:-2], b.shape[:-2])
        return TensorType((*lead, a.shape[-2], b.shape[-1]), promote(a.dtype, b.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.matmul(inputs[0], inputs[1])

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        a, b = inputs
        rank = max(len(a.shape), len(b.shape))
        left = None if dim == rank - 1 else aligned(a, rank, dim)
        right = None if dim == rank - 2 else aligned(b, rank, dim)
        return (left, right)


OPS: tuple[Op, ...] = (Linear(), LinearDiagonal(), MatMul())
