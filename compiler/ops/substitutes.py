"""Other functions in place of GELU and softmax, cheap inside MPC, for models that were trained with them.

A user chooses them (`gelu=quad`, `softmax=2quad`); passes/graph/change_model.py puts them into the graph.
Quad and 2Quad are MPCFormer's (Li et al., ICLR 2023), 2ReLU is SecureML's (Mohassel and Zhang 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mpcc.compiler.ops.activations import Unary
from mpcc.compiler.ops.attention import Attention, kept_keys, scaled_scores
from mpcc.compiler.ops.base import Attrs, Op, Statistics, Tensors, Types, choice, integer
from mpcc.compiler.ops.normalisation import Softmax
from mpcc.compiler.substitutes import LEAST_SUM, QUAD_OFFSET
from mpcc.compiler.types import TensorType


def quad(x: torch.Tensor) -> torch.Tensor:
    """x^2/8 + x/4 + 1/2, written so that its only product is a square."""
    return torch.square(x + 1.0) * 0.125 + 0.375


# form of softmax -> weights of a row before they are divided by their sum
WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "2quad": lambda scores: torch.square(scores + QUAD_OFFSET),
    "2relu": torch.relu,
}


class GeluQuad(Unary):
    """gelu_quad(x) = x^2/8 + x/4 + 1/2."""

    name = "gelu_quad"
    replaces = "gelu"
    chosen_by = ("gelu", "quad")
    function = staticmethod(quad)


class _Softmax(Softmax):
    aten = {}
    replaces = "softmax"
    statistics = ()

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        weights = WEIGHTS[self.chosen_by[1]](inputs[0])
        return weights / (weights.sum(integer(attrs, "dim"), keepdim=True) + LEAST_SUM)


class Softmax2Quad(_Softmax):
    """softmax_2quad(x; dim) = w_i / (2^-6 + sum_j w_j) along `dim`, with w = (x + 5)^2."""

    name = "softmax_2quad"
    chosen_by = ("softmax", "2quad")


class Softmax2Relu(_Softmax):
    """softmax_2relu(x; dim) = w_i / (2^-6 + sum_j w_j) along `dim`, with w = max(x, 0)."""

    name = "softmax_2relu"
    chosen_by = ("softmax", "2relu")


class _Attention(Attention):
    """For masks that are the same for all queries: mask is "none" or "key"."""

    aten = {}
    optional_attrs = ()
    replaces = "attention"
    statistics = ("score_abs",)

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        choice(attrs, "mask", ("none", "key"))
        return super().infer(inputs, attrs)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        scores = scaled_scores(inputs, attrs)
        weights = WEIGHTS[self.chosen_by[1]](scores) * kept_keys(inputs, attrs, scores).to(scores.dtype)
        return torch.matmul(weights, inputs[2]) / (weights.sum(-1, keepdim=True) + LEAST_SUM)

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        scores = scaled_scores(inputs, attrs)
        return {"score_abs": float(scores[kept_keys(inputs, attrs, scores)].abs().max())}


class Attention2Quad(_Attention):
    """attention_2quad(q, k, v[, keep, anchor]; scale, mask): attention with softmax_2quad over the kept keys."""

    name = "attention_2quad"
    chosen_by = ("softmax", "2quad")


class Attention2Relu(_Attention):
    """attention_2relu(q, k, v[, keep, anchor]; scale, mask): attention with softmax_2relu over the kept keys."""

    name = "attention_2relu"
    chosen_by = ("softmax", "2relu")


OPS: tuple[Op, ...] = (GeluQuad(), Softmax2Quad(), Softmax2Relu(), Attention2Quad(), Attention2Relu())
