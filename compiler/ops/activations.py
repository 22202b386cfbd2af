"""Non-linear functions of one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch.nn import functional

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Converter,
    Op,
    Statistics,
    Tensors,
    Types,
    Value,
    choice,
    extremes,
    number,
    promote,
)
from mpcc.compiler.types import TensorType

ARGUMENT = ("argument_min", "argument_max")


def _unary(op: str) -> Converter:
    def convert(b: Builder, a: Args) -> Value:
        return b.emit(op, [a["self"]])

    return convert


def _gelu(b: Builder, a: Args) -> Value:
    return b.emit("gelu", [a["self"]], approximate=a["approximate"])


class Unary(Op):
    """`function` of each element."""

    arity = (1, 1)
    elementwise = True
    secure = True
    function: ClassVar[Callable[..., torch.Tensor]]

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        return TensorType(inputs[0].shape, promote(inputs[0].dtype, "f32"))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return type(self).function(inputs[0])

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        return extremes("argument", inputs[0])


class Gelu(Unary):
    """gelu(x; approximate): "none" is x Phi(x), "tanh" is x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    name = "gelu"
    attrs = ("approximate",)
    statistics = ARGUMENT
    aten = {"aten.gelu.default": _gelu}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        choice(attrs, "approximate", ("none", "tanh"))
        return super().infer(inputs, attrs)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return functional.gelu(inputs[0], approximate=choice(attrs, "approximate", ("none", "tanh")))


class Tanh(Unary):
    """tanh(x) = (e^x - e^-x) / (e^x + e^-x)."""

    name = "tanh"
    function = staticmethod(torch.tanh)
    aten = {"aten.tanh.default": _unary("tanh")}


class Sigmoid(Unary):
    """sigmoid(x) = 1 / (1 + e^-x)."""

    name = "sigmoid"
    function = staticmethod(torch.sigmoid)
    aten = {"aten.sigmoid.default": _unary("sigmoid")}


class Silu(Unary):
    """silu(x) = x / (1 + e^-x)."""

    name = "silu"
    statistics = ARGUMENT
    function = staticmethod(functional.silu)
    aten = {"aten.silu.default": _unary("silu")}


class Relu(Unary):
    """relu(x) = max(x, 0)."""

    name = "relu"
    function = staticmethod(torch.relu)
    aten = {"aten.relu.default": _unary("relu")}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        return inputs[0]


class LeakyRelu(Unary):
    """leaky_relu(x; slope) = x where x >= 0, else slope x."""

    name = "leaky_relu"
    attrs = ("slope",)
    aten = {"aten.leaky_relu.default": lambda b, a: b.emit("leaky_relu", [a["self"]], slope=float(a["negative_slope"]))}

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return functional.leaky_relu(inputs[0], number(attrs, "slope"))


class Exp(Unary):
    """exp(x) = e^x."""

    name = "exp"
    statistics = ARGUMENT
    function = staticmethod(torch.exp)
    aten = {"aten.exp.default": _unary("exp")}


class Reciprocal(Unary):
    """reciprocal(x) = 1 / x."""

    name = "reciprocal"
    statistics = ARGUMENT
    function = staticmethod(torch.reciprocal)
    aten = {"aten.reciprocal.default": _unary("reciprocal")}


class Rsqrt(Unary):
    """rsqrt(x) = x^(-1/2)."""

    name = "rsqrt"
    statistics = ARGUMENT
    function = staticmethod(torch.rsqrt)
    aten = {"aten.rsqrt.default": _unary("rsqrt")}


class Sqrt(Unary):
    """sqrt(x) = x^(1/2)."""

    name = "sqrt"
    statistics = ARGUMENT
    function = staticmethod(torch.sqrt)
    aten = {"aten.sqrt.default": _unary("sqrt")}


OPS: tuple[Op, ...] = (Gelu(), Tanh(), Sigmoid(), Silu(), Relu(), LeakyRelu(), Exp(), Reciprocal(), Rsqrt(), Sqrt())
