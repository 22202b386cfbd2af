"""Sums and means over dimensions."""

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
    axis,
    fail,
    from_torch,
    integer,
    ints,
    is_float,
    promote,
)
from mpcc.compiler.types import TensorType


def _reduce(op: str) -> Converter:
    def convert(b: Builder, a: Args) -> Value:
        x = a["self"]
        if a.get("dtype") is not None and from_torch(a["dtype"]) != x.dtype:
            x = b.emit("cast", [x], dtype=from_torch(a["dtype"]))
        rank, dims = len(x.shape), a.get("dim")
        listed = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        axes = tuple(sorted(axis(d, rank) for d in listed)) if rank else ()
        return b.emit(op, [x], dims=axes, keepdim=bool(a.get("keepdim", False)))

    return convert


def _cumsum(b: Builder, a: Args) -> Value:
    x = a["self"]
    y = b.emit("cumsum", [x], dim=axis(a["dim"], len(x.shape)))
    wanted = y.dtype if a["dtype"] is None else from_torch(a["dtype"])
    return y if wanted == y.dtype else b.emit("cast", [y], dtype=wanted)


class _Reduction(Op):
    arity = (1, 1)
    attrs = ("dims", "keepdim")
    secure = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        x, dims = inputs[0], set(ints(attrs, "dims"))
        if any(not 0 <= d < len(x.shape) for d in dims):
            raise fail(self.name, f"dims {sorted(dims)} of {x}")
        keep = attrs["keepdim"] is True
        shape = tuple(1 if d in dims else n for d, n in enumerate(x.shape) if keep or d not in dims)
        return TensorType(shape, self.element(x.dtype))

    def element(self, dtype: str) -> str:
        raise NotImplementedError

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        summed, rank = set(ints(attrs, "dims")), len(inputs[0].shape)
        kept = list(range(rank)) if attrs["keepdim"] is True else [d for d in range(rank) if d not in summed]
        return None if kept[dim] in summed else (kept[dim],)


class Sum(_Reduction):
    """sum(x; dims, keepdim): the sum over `dims` (counted from the front); over none of them it is x."""

    name = "sum"
    aten = {"aten.sum.dim_IntList": _reduce("sum"), "aten.sum.default": _reduce("sum")}

    def element(self, dtype: str) -> str:
        return dtype if is_float(TensorType((), dtype)) else "i64"

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        dims = ints(attrs, "dims")
        # PyTorch reads an empty list as "all dimensions".
        return inputs[0].sum(dims, keepdim=attrs["keepdim"] is True) if dims else inputs[0].clone()


class Mean(_Reduction):
    """mean(x; dims, keepdim): the mean over `dims`, counted from the front."""

    name = "mean"
    aten = {"aten.mean.dim": _reduce("mean"), "aten.mean.default": _reduce("mean")}

    def element(self, dtype: str) -> str:
        return promote(dtype, "f32")

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        dims = ints(attrs, "dims")
        return inputs[0].mean(dims, keepdim=attrs["keepdim"] is True) if dims else inputs[0].clone()


class Cumsum(Op):
    """cumsum(x; dim): the running sum along `dim`, counted from the front."""

    name = "cumsum"
    arity = (1, 1)
    attrs = ("dim",)
    aten = {"aten.cumsum.default": _cumsum}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        x = inputs[0]
        if not 0 <= integer(attrs, "dim") < max(len(x.shape), 1):
            raise fail(self.name, f"dim {attrs['dim']} of {x}")
        return TensorType(x.shape, x.dtype if is_float(x) else "i64")

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].cumsum(integer(attrs, "dim"))


OPS: tuple[Op, ...] = (Sum(), Mean(), Cumsum())
