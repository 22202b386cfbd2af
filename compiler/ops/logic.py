"""Comparisons and logic: in clear only, as masks are made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Converter,
    Op,
    Tensors,
    Types,
    Value,
    broadcast,
    fail,
    only,
    value_of,
)
from mpcc.compiler.types import TensorType


def _compare(op: str) -> Converter:
    def convert(b: Builder, a: Args) -> Value:
        return b.emit(op, [a["self"], value_of(b, a["other"], a["self"])])

    return convert


def _logical(op: str) -> Converter:
    """Also for bitwise operations, which mean the same on booleans."""

    def convert(b: Builder, a: Args) -> Value:
        values = [a["self"]] + ([value_of(b, a["other"])] if "other" in a else [])
        only(all(v.dtype == "bool" for v in values), f"{op} of integers")
        return b.emit(op, values)

    return convert


class _Boolean(Op):
    arity = (2, 2)
    elementwise = True
    function: ClassVar[Callable[..., torch.Tensor]]

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        return TensorType(broadcast(self.name, *(t.shape for t in inputs)), "bool")

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return type(self).function(*inputs)


class _Logical(_Boolean):
    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if any(t.dtype != "bool" for t in inputs):
            raise fail(self.name, "its inputs must be boolean")
        return super().infer(inputs, attrs)


def _both(op: str, name: str) -> dict[str, Converter]:
    return {f"aten.{name}.Tensor": _compare(op), f"aten.{name}.Scalar": _compare(op)}


class Eq(_Boolean):
    """eq(a, b): a = b."""

    name = "eq"
    function = staticmethod(torch.eq)
    aten = _both("eq", "eq")


class Ne(_Boolean):
    """ne(a, b): a != b."""

    name = "ne"
    function = staticmethod(torch.ne)
    aten = _both("ne", "ne")


class Ge(_Boolean):
    """ge(a, b): a >= b."""

    name = "ge"
    function = staticmethod(torch.ge)
    aten = _both("ge", "ge")


class Gt(_Boolean):
    """gt(a, b): a > b."""

    name = "gt"
    function = staticmethod(torch.gt)
    aten = _both("gt", "gt")


class Le(_Boolean):
    """le(a, b): a <= b."""

    name = "le"
    function = staticmethod(torch.le)
    aten = _both("le", "le")


class Lt(_Boolean):
    """lt(a, b): a < b."""

    name = "lt"
    function = staticmethod(torch.lt)
    aten = _both("lt", "lt")


class LogicalAnd(_Logical):
    """logical_and(a, b) on booleans."""

    name = "logical_and"
    function = staticmethod(torch.logical_and)
    aten = {
        "aten.logical_and.default": _logical("logical_and"),
        "aten.bitwise_and.Tensor": _logical("logical_and"),
        "aten.__and__.Tensor": _logical("logical_and"),
    }


class LogicalOr(_Logical):
    """logical_or(a, b) on booleans."""

    name = "logical_or"
    function = staticmethod(torch.logical_or)
    aten = {
        "aten.logical_or.default": _logical("logical_or"),
        "aten.bitwise_or.Tensor": _logical("logical_or"),
        "aten.__or__.Tensor": _logical("logical_or"),
    }


class LogicalNot(_Logical):
    """logical_not(a) on booleans."""

    name = "logical_not"
    arity = (1, 1)
    elementwise = True
    function = staticmethod(torch.logical_not)
    aten = {
        "aten.logical_not.default": _logical("logical_not"),
        "aten.bitwise_not.default": _logical("logical_not"),
    }


OPS: tuple[Op, ...] = (Eq(), Ne(), Ge(), Gt(), Le(), Lt(), LogicalAnd(), LogicalOr(), LogicalNot())
