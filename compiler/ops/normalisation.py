"""Softmax and the norms."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Op,
    Sources,
    Statistics,
    Tensors,
    Types,
    Value,
    axis,
    choice,
    extremes,
    fail,
    integer,
    ints,
    number,
    only,
    promote,
)
from mpcc.compiler.types import TensorType

_ONE_DIM = "a norm over more than the last dimension"


def _softmax(b: Builder, a: Args) -> Value:
    x = a["self"]
    only(a.get("dtype") in (None, torch.float32, torch.float64), "softmax in another element type")
    return b.emit("softmax", [x], dim=axis(a["dim"], len(x.shape)))


def _layer_norm(b: Builder, a: Args) -> Value:
    only(len(a["normalized_shape"]) == 1, _ONE_DIM)
    gamma, beta = a["weight"], a["bias"]
    affine = "none" if gamma is None else "gamma" if beta is None else "gamma_beta"
    inputs = [a["input"]] + ([] if gamma is None else [gamma] if beta is None else [gamma, beta])
    y = b.emit("layer_norm", inputs, eps=float(a["eps"]), affine=affine)
    return b.emit("add", [y, beta]) if gamma is None and beta is not None else y


def _rms_norm(b: Builder, a: Args) -> Value:
    only(len(a["normalized_shape"]) == 1, _ONE_DIM)
    eps = torch.finfo(torch.float32).eps if a["eps"] is None else a["eps"]
    return b.emit("rms_norm", [a["input"]] + ([] if a["weight"] is None else [a["weight"]]), eps=float(eps), gain=1.0)


class Softmax(Op):
    """softmax(x; dim) = e^x_i / sum_j e^x_j along `dim`, counted from the front."""

    name = "softmax"
    arity = (1, 1)
    attrs = ("dim",)
    secure = True
    statistics: ClassVar[tuple[str, ...]] = ("spread",)  # the largest difference between two entries of a row
    aten = {"aten.softmax.int": _softmax, "aten._softmax.default": _softmax}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        if not 0 <= integer(attrs, "dim") < max(len(inputs[0].shape), 1):
            raise fail(self.name, f"dim {attrs['dim']} of {inputs[0]}")
        return TensorType(inputs[0].shape, promote(inputs[0].dtype, "f32"))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.softmax(inputs[0], integer(attrs, "dim"))

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        dim = integer(attrs, "dim")
        return {"spread": float((inputs[0].amax(dim) - inputs[0].amin(dim)).max())}

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return None if dim == integer(attrs, "dim") else (dim,)


class Norm(Op):
    """Over the last dimension of the first input; vectors follow it.

    `lifted` = (p, k), where it is there, is how a norm is computed and changes nothing of what it means: from position
    p on (along dimension 1, the first being the batch) everything is multiplied by 2^k first, which cancels. The
    statistics are those of what is multiplied.
    """

    optional_attrs = ("lifted",)
    statistics = ("variance_min", "variance_max")  # of what the root is taken of, per row

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        shape = inputs[0].shape
        if not shape or any(v.shape != shape[-1:] for v in inputs[1:]):
            raise fail(self.name, "gamma and beta must have the size of x's last dimension")
        lifted = lifted_of(attrs)
        if lifted is not None and not (len(shape) > 2 and 0 < lifted[0] < shape[1] and 0 < lifted[1] <= MOST_LIFTED):
            raise fail(self.name, f"lifted={lifted} of {inputs[0]}")
        return inputs[0]

    def mean_squares(self, x: torch.Tensor) -> torch.Tensor:
        """What the root is taken of, but for eps: one number for each row."""
        raise NotImplementedError

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        squares, lifted = self.mean_squares(inputs[0]), lifted_of(attrs)
        if lifted is not None:
            first, steps = lifted
            squares = torch.cat([squares[:, :first], squares[:, first:] * 4.0**steps], 1)
        return extremes("variance", squares)

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        last = len(inputs[0].shape) - 1
        return None if dim == last else (dim, *(None for _ in inputs[1:]))


MOST_LIFTED = 16


def lifted_of(attrs: Attrs) -> tuple[int, int] | None:
    """`lifted` of a norm, if it is there."""
    if attrs.get("lifted") is None:
        return None
    first, steps = ints(attrs, "lifted")[:2] if len(ints(attrs, "lifted")) == 2 else (0, 0)
    return first, steps


class LayerNorm(Norm):
    """layer_norm(x[, gamma[, beta]]; eps, affine) = (x - mean) / sqrt(var + eps) gamma + beta, over the last dim.

    `affine` ("none", "gamma" or "gamma_beta") repeats which of the vectors are there; var is the biased variance.
    """

    name = "layer_norm"
    arity = (1, 3)
    attrs = ("eps", "affine")
    secure = True
    aten = {
        "aten.layer_norm.default": _layer_norm,
        "aten.native_layer_norm.default": lambda b, a: [_layer_norm(b, a), None, None],
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        number(attrs, "eps")
        affine = choice(attrs, "affine", ("none", "gamma", "gamma_beta"))
        if len(inputs) != 1 + ("none", "gamma", "gamma_beta").index(affine):
            raise fail(self.name, f"affine={affine} with {len(inputs)} inputs")
        return super().infer(inputs, attrs)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        x, gamma, beta = inputs[0], *(*inputs[1:], None, None)[:2]
        return functional.layer_norm(x, x.shape[-1:], gamma, beta, number(attrs, "eps"))

    def mean_squares(self, x: torch.Tensor) -> torch.Tensor:
        return x.var(-1, unbiased=False)


class RmsNorm(Norm):
    """rms_norm(x[, gamma]; eps, gain) = gain x / sqrt(mean(x^2) + eps) gamma, over the last dimension."""

    name = "rms_norm"
    arity = (1, 2)
    attrs = ("eps", "gain")
    secure = True
    aten = {"aten.rms_norm.default": _rms_norm}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        number(attrs, "eps")
        number(attrs, "gain")
        return super().infer(inputs, attrs)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        x, gamma = inputs[0], (*inputs[1:], None)[0]
        return functional.rms_norm(x, x.shape[-1:], gamma, number(attrs, "eps")) * number(attrs, "gain")

    def mean_squares(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().mean(-1)


OPS: tuple[Op, ...] = (Softmax(), LayerNorm(), RmsNorm())
