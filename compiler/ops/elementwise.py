"""Arithmetic, element by element, with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from mpcc.compiler.ops.base import (
    FLOATS,
    TO_TORCH,
    Args,
    Attrs,
    Builder,
    Op,
    Statistics,
    Tensors,
    Types,
    Value,
    broadcast,
    choice,
    extremes,
    fail,
    from_torch,
    is_float,
    number,
    promote,
    reject,
    value_of,
)
from mpcc.compiler.types import TensorType


def _scaled(b: Builder, x: Value, factor: Any) -> Value:
    return x if factor == 1 and x.dtype != "bool" else b.emit("scale", [x], factor=factor)


def _add(b: Builder, a: Args) -> Value:
    x, y, alpha = a["self"], a["other"], a["alpha"]
    if isinstance(y, Value):
        return b.emit("add", [x, _scaled(b, y, alpha)])
    return b.emit("shift", [x], offset=y * alpha)


def _sub(b: Builder, a: Args) -> Value:
    x, y, alpha = a["self"], a["other"], a["alpha"]
    if isinstance(y, Value):
        return b.emit("sub", [x, _scaled(b, y, alpha)])
    return b.emit("shift", [x], offset=-y * alpha)


def _rsub(b: Builder, a: Args) -> Value:
    """other - alpha * self."""
    x, y = a["self"], a["other"]
    if isinstance(y, Value):
        return b.emit("sub", [y, _scaled(b, x, a["alpha"])])
    return b.emit("shift", [b.emit("scale", [x], factor=-a["alpha"])], offset=y)


def _mul(b: Builder, a: Args) -> Value:
    x, y = a["self"], a["other"]
    return b.emit("mul", [x, y]) if isinstance(y, Value) else b.emit("scale", [x], factor=y)


def _div(b: Builder, a: Args) -> Value:
    x, y = a["self"], a["other"]
    if isinstance(y, Value):
        return b.emit("div", [x, y])
    if y == 0:
        raise reject("division by the constant zero")
    return b.emit("scale", [x], factor=1.0 / y)


def _neg(b: Builder, a: Args) -> Value:
    return b.emit("scale", [a["self"]], factor=-1.0 if is_float(a["self"]) else -1)


def _pow(b: Builder, a: Args) -> Value:
    x, exponent = a["self"], a["exponent"]
    if exponent == 1:
        return value_of(b, x)
    if exponent == 3:
        return b.emit("mul", [b.emit("square", [x]), x])
    if exponent == 4:
        return b.emit("square", [b.emit("square", [x])])
    ops = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent not in ops:
        raise reject(f"power {exponent}; 1, 2, 3, 4, 0.5, -0.5 and -1 are known")
    return b.emit(ops[exponent], [x])


def _where(b: Builder, a: Args) -> Value:
    x, y = a["self"], a["other"]
    x, y = value_of(b, x, y if isinstance(y, Value) else None), value_of(b, y, x if isinstance(x, Value) else None)
    return b.emit("where", [a["condition"], x, y])


def _masked_fill(b: Builder, a: Args) -> Value:
    x = a["self"]
    return b.emit("where", [a["mask"], value_of(b, a["value"], x), x])


def _cast(b: Builder, a: Args) -> Value:
    """`to` and its relatives: only the element type matters here, device and memory layout do not."""
    x = a["other"] if "other" in a and "self" not in a else a["self"]
    dtype = a.get("dtype")
    if dtype is None and isinstance(a.get("other"), Value):
        target = a["other"].dtype
    else:
        target = x.dtype if dtype is None else from_torch(dtype)
    return value_of(b, x) if target == x.dtype else b.emit("cast", [x], dtype=target)


class _Binary(Op):
    arity = (2, 2)
    elementwise = True
    secure = True
    function: ClassVar[Callable[..., torch.Tensor]]

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        a, b = inputs
        return TensorType(broadcast(self.name, a.shape, b.shape), promote(a.dtype, b.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return type(self).function(inputs[0], inputs[1])


class Add(_Binary):
    """add(a, b) = a + b."""

    name = "add"
    function = staticmethod(operator.add)
    aten = {"aten.add.Tensor": _add, "aten.add.Scalar": _add}


class Sub(_Binary):
    """sub(a, b) = a - b."""

    name = "sub"
    function = staticmethod(operator.sub)
    aten = {"aten.sub.Tensor": _sub, "aten.sub.Scalar": _sub, "aten.rsub.Scalar": _rsub, "aten.rsub.Tensor": _rsub}


class Mul(_Binary):
    """mul(a, b) = a b, element by element."""

    name = "mul"
    function = staticmethod(operator.mul)
    aten = {"aten.mul.Tensor": _mul, "aten.mul.Scalar": _mul}


class Div(_Binary):
    """div(a, b) = a / b (true division)."""

    name = "div"
    function = staticmethod(operator.truediv)
    statistics = ("argument_min", "argument_max")  # of the divisor
    aten = {"aten.div.Tensor": _div, "aten.div.Scalar": _div, "aten.true_divide.Tensor": _div}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        a, b = inputs
        return TensorType(broadcast(self.name, a.shape, b.shape), promote(a.dtype, b.dtype, "f32"))

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        return extremes("argument", inputs[1])


class _WithNumber(Op):
    arity = (1, 1)
    elementwise = True
    secure = True

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        value = number(attrs, self.attrs[0])
        kind = "f32" if isinstance(value, float) else "i64" if inputs[0].dtype == "bool" else "bool"
        return TensorType(inputs[0].shape, promote(inputs[0].dtype, kind))


class Scale(_WithNumber):
    """scale(x; factor) = factor x, the factor being public."""

    name = "scale"
    attrs = ("factor",)
    aten = {"aten.neg.default": _neg}

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0] * number(attrs, "factor")


class Shift(_WithNumber):
    """shift(x; offset) = x + offset, the offset being public."""

    name = "shift"
    attrs = ("offset",)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0] + number(attrs, "offset")


class Square(Op):
    """square(x) = x x."""

    name = "square"
    arity = (1, 1)
    elementwise = True
    secure = True
    aten = {
        "aten.pow.Tensor_Scalar": _pow,
        "aten.square.default": lambda b, a: b.emit("square", [a["self"]]),
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        return TensorType(inputs[0].shape, "i64" if inputs[0].dtype == "bool" else inputs[0].dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.square(inputs[0])


class Where(Op):
    """where(cond, a, b) = a where cond holds, else b; cond is boolean, all three broadcast."""

    name = "where"
    arity = (3, 3)
    elementwise = True
    secure = True
    aten = {
        "aten.where.self": _where,
        "aten.where.ScalarSelf": _where,
        "aten.where.ScalarOther": _where,
        "aten.where.Scalar": _where,
        "aten.masked_fill.Scalar": _masked_fill,
        "aten.masked_fill.Tensor": _masked_fill,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        cond, a, b = inputs
        if cond.dtype != "bool":
            raise fail(self.name, f"the condition is {cond}, not boolean")
        return TensorType(broadcast(self.name, cond.shape, a.shape, b.shape), promote(a.dtype, b.dtype))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.where(inputs[0], inputs[1], inputs[2])


class Cast(Op):
    """cast(x; dtype) = x in another element type."""

    name = "cast"
    arity = (1, 1)
    elementwise = True
    attrs = ("dtype",)
    secure = True
    keeps_numbers = True
    aten = {
        "aten.to.dtype": _cast,
        "aten.to.device": _cast,
        "aten.to.other": _cast,
        "aten.to.dtype_layout": _cast,
        "aten._to_copy.default": _cast,
        "aten.type_as.default": _cast,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        return TensorType(inputs[0].shape, choice(attrs, "dtype", tuple(TO_TORCH)))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].to(TO_TORCH[choice(attrs, "dtype", tuple(TO_TORCH))])

    def refusal(self, inputs: Types, result: TensorType) -> str:
        if inputs[0].dtype not in FLOATS:
            return f"it converts from {inputs[0].dtype}; integer and boolean values are never computed inside MPC"
        return super().refusal(inputs, result)


OPS: tuple[Op, ...] = (Add(), Sub(), Mul(), Div(), Scale(), Shift(), Square(), Where(), Cast())
