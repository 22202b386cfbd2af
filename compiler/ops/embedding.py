"""Table look-up."""

from __future__ import annotations

import torch

from mpcc.compiler.ops.base import Args, Attrs, Builder, Op, Sources, Tensors, Types, Value, fail, integer
from mpcc.compiler.types import TensorType


def _embedding(b: Builder, a: Args) -> Value:
    return b.emit("embedding", [a["weight"], a["indices"]])


class Embedding(Op):
    """embedding(table, ids) = table[ids], with table [rows, width] and ids integers of any shape.

    Inside MPC it is a product with one-hot rows, which the owner of the ids builds: no back end sees it.
    """

    name = "embedding"
    arity = (2, 2)
    secure = True
    back_ends = ()
    aten = {"aten.embedding.default": _embedding}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        table, ids = inputs
        if len(table.shape) != 2 or ids.dtype not in ("i32", "i64"):
            raise fail(self.name, f"table {table} and ids {ids}")
        return TensorType((*ids.shape, table.shape[1]), table.dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.nn.functional.embedding(inputs[1], inputs[0])

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        ids = inputs[1].shape
        return (None, dim) if dim < len(ids) else (1, None)


class OneHot(Op):
    """one_hot(ids; classes): row i is 1 at ids[i] and 0 elsewhere; its owner makes it in clear."""

    name = "one_hot"
    arity = (1, 1)
    attrs = ("classes",)
    whole = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if inputs[0].dtype not in ("i32", "i64") or integer(attrs, "classes") < 1:
            raise fail(self.name, f"ids {inputs[0]} and {attrs['classes']} classes")
        return TensorType((*inputs[0].shape, integer(attrs, "classes")), "f32")

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.nn.functional.one_hot(inputs[0].long(), integer(attrs, "classes")).float()


class Pick(Op):
    """pick(x, ids; dim): of every input b of a batch place ids[b] along `dim` alone, [B, .., 1, ..].

    x [B or 1, .., n, ..] with dim >= 1, ids [B] integers in 0..n-1. As a look-up, it is a product inside MPC.
    """

    name = "pick"
    arity = (2, 2)
    attrs = ("dim",)
    secure = True
    back_ends = ()

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        (x, ids), dim = inputs, integer(attrs, "dim")
        if ids.dtype not in ("i32", "i64") or len(ids.shape) != 1 or not 1 <= dim < len(x.shape):
            raise fail(self.name, f"ids {ids} along {dim} of {x}")
        if x.shape[0] not in (1, ids.shape[0]):
            raise fail(self.name, f"ids {ids} for a batch of {x.shape[0]}")
        return TensorType((ids.shape[0], *x.shape[1:dim], 1, *x.shape[dim + 1 :]), x.dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        (x, ids), dim = inputs, integer(attrs, "dim")
        rows = x.expand(ids.shape[0], *x.shape[1:])
        return torch.stack([row.narrow(dim - 1, int(i), 1) for row, i in zip(rows, ids, strict=True)])


OPS: tuple[Op, ...] = (Embedding(), OneHot(), Pick())
