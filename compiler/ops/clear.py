"""Operations that run in clear only: one table of pure ATen functions.

The client runs graphs whose text the provider wrote. A node therefore never names a function to call: its op must be
a row of `FUNCTIONS`, each of which computes its result from its arguments and does nothing else. Nothing that draws
random numbers, reads uninitialised memory, or writes to its arguments belongs here.

Attributes carry the call by the schema's argument names: `("tensor", i)` is input i, `("dtype", "i64")` an element
type, a tuple of such things a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ops.base import (
    TO_TORCH,
    Args,
    Attrs,
    Builder,
    Converter,
    Op,
    Tensors,
    Types,
    Value,
    from_torch,
    reject,
)
from mpcc.compiler.types import Attr, TensorType

_aten = torch.ops.aten

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    str(f): f
    for f in (
        # made from nothing
        _aten.arange.default,
        _aten.arange.start,
        _aten.arange.start_step,
        _aten.eye.default,
        _aten.eye.m,
        _aten.full.default,
        _aten.ones.default,
        _aten.zeros.default,
        _aten.scalar_tensor.default,
        _aten.full_like.default,
        _aten.ones_like.default,
        _aten.zeros_like.default,
        _aten.new_full.default,
        _aten.new_ones.default,
        _aten.new_zeros.default,
        _aten.fill.Scalar,
        _aten.tril.default,
        _aten.triu.default,
        # moved about
        _aten.gather.default,
        _aten.index.Tensor,
        _aten.index_select.default,
        _aten.flip.default,
        _aten.roll.default,
        _aten.constant_pad_nd.default,
        _aten.scatter.src,
        _aten.scatter.value,
        _aten.slice_scatter.default,
        _aten.select_scatter.default,
        # integers and comparisons
        _aten.diff.default,
        _aten.floor_divide.default,
        _aten.div.Tensor_mode,
        _aten.remainder.Scalar,
        _aten.remainder.Tensor,
        _aten.bitwise_and.Scalar,
        _aten.bitwise_xor.Tensor,
        _aten.logical_xor.default,
        _aten.isin.Tensor_Tensor,
        _aten.isin.Tensor_Scalar,
        _aten.bucketize.Tensor,
        _aten.any.default,
        _aten.any.dim,
        _aten.all.default,
        _aten.all.dim,
        _aten.argmax.default,
        _aten.argmin.default,
        _aten.isnan.default,
        _aten.isinf.default,
        # real functions without a secure form
        _aten.abs.default,
        _aten.sign.default,
        _aten.floor.default,
        _aten.ceil.default,
        _aten.round.default,
        _aten.cos.default,
        _aten.sin.default,
        _aten.log.default,
        _aten.log1p.default,
        _aten.erf.default,
        _aten.maximum.default,
        _aten.minimum.default,
        _aten.clamp.default,
        _aten.clamp_min.default,
        _aten.clamp_max.default,
        _aten.amax.default,
        _aten.amin.default,
        _aten.max.default,
        _aten.min.default,
        _aten.pow.Tensor_Tensor,
        _aten.pow.Scalar,
        _aten.linalg_vector_norm.default,
        _aten.outer.default,
    )
}

# Where a tensor lives and how it is laid out does not concern a graph.
_IGNORED = frozenset({"device", "layout", "pin_memory", "memory_format", "generator", "non_blocking"})


def _encode(value: Any, inputs: list[Value]) -> Attr:
    if isinstance(value, Value):
        if value not in inputs:
            inputs.append(value)
        return ("tensor", inputs.index(value))
    if isinstance(value, torch.dtype):
        return ("dtype", from_torch(value))
    if isinstance(value, (list, tuple)):
        return tuple(_encode(v, inputs) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise reject(f"an argument of type {type(value).__name__}")


def _decode(value: Attr, inputs: Tensors) -> Any:
    if not isinstance(value, tuple):
        return value
    if len(value) == 2 and value[0] == "tensor" and isinstance(value[1], int) and 0 <= value[1] < len(inputs):
        return inputs[value[1]]
    if len(value) == 2 and value[0] == "dtype" and isinstance(value[1], str) and value[1] in TO_TORCH:
        return TO_TORCH[value[1]]
    return [_decode(v, inputs) for v in value]


def _converter(name: str) -> Converter:
    def convert(b: Builder, a: Args) -> Value:
        inputs: list[Value] = []
        attrs = {k: _encode(v, inputs) for k, v in a.items() if k not in _IGNORED}
        return b.emit(name, inputs, **attrs)

    return convert


class ClearOp(Op):
    """A pure ATen function, by the name of its overload."""

    arity = (0, 1 << 16)

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]
        self.aten = {name: _converter(name)}  # type: ignore[misc]
        self._function = FUNCTIONS[name]
        schema = self._function._schema.arguments  # type: ignore[attr-defined]
        self._positional = [a.name for a in schema if not a.kwarg_only and a.name not in _IGNORED]
        self.attrs = tuple(a.name for a in schema if a.name not in _IGNORED)  # type: ignore[misc]

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        meta = [torch.empty(t.shape, dtype=TO_TORCH[t.dtype], device="meta") for t in inputs]
        result = self._call(meta, attrs, device="meta")
        return TensorType(tuple(result.shape), from_torch(result.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return self._call(inputs, attrs, device="cpu")

    def _call(self, inputs: Tensors, attrs: Attrs, device: str) -> torch.Tensor:
        args = [_decode(attrs[k], inputs) for k in self._positional]
        named = {k: _decode(attrs[k], inputs) for k in self.attrs if k not in self._positional}
        if not inputs:
            named["device"] = device
        try:
            result = self._function(*args, **named)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise InternalError(f"{self.name}: {str(error).splitlines()[0]}") from error
        if not isinstance(result, torch.Tensor):
            raise InternalError(f"{self.name} does not give one tensor")
        return result


OPS: tuple[Op, ...] = tuple(ClearOp(name) for name in FUNCTIONS)
