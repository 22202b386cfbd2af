"""Norms and activations as libraries write them: each becomes one operation that computes the same in float64."""

from __future__ import annotations

import math

import pytest
import torch
from harness import canonicalise
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.ops import MOVES_DATA

WIDTH = 6


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.gamma, self.beta = (
            nn.Parameter(torch.rand(WIDTH).double() + 0.5),
            nn.Parameter(torch.randn(WIDTH).double()),
        )

    def forward(self, x):
        return self.function(self, x)


def found(model, dtype=torch.float64):
    """The operations that `model` becomes; they give what it gives."""
    torch.manual_seed(0)
    x = (torch.randn(2, 3, WIDTH) * 3).to(dtype)
    captured = capture(model.eval(), {"x": x})
    graph, tensors = canonicalise(captured.graph, captured.tensors)
    got = outputs_of(graph, run_graph(graph, {graph.nodes[[n.op for n in graph].index("input")].name: x}, tensors))
    with torch.no_grad():
        exact = model(x)
    (value,) = got.values()
    torch.testing.assert_close(value.to(exact.dtype), exact, rtol=1e-6 if dtype == torch.float64 else 1e-2, atol=1e-6)
    return [n.op for n in graph.operations() if n.op not in MOVES_DATA]


def megatron(x):
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


ACTIVATIONS = {
    "gelu_new": (ACT2FN["gelu_new"], ["gelu"]),
    "gelu_fast": (ACT2FN["gelu_fast"], ["gelu"]),
    "gelu_python": (ACT2FN["gelu_python"], ["gelu"]),
    "gelu_pytorch_tanh": (ACT2FN["gelu_pytorch_tanh"], ["gelu"]),
    "megatron": (megatron, ["gelu"]),
    "cubed": (lambda x: x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))), ["gelu"]),
    "silu": (ACT2FN["silu"], ["silu"]),
    "x sigmoid": (lambda x: torch.sigmoid(x) * x, ["silu"]),
    "x / (1 + exp)": (lambda x: x / (1 + torch.exp(-x)), ["silu"]),
    "x (1 + tanh) / 2": (lambda x: 0.5 * x * (torch.tanh(x / 2) + 1), ["silu"]),
    "quick_gelu": (ACT2FN["quick_gelu"], ["scale", "silu", "scale"]),
    "of a sum": (lambda x: nn.functional.silu(x + x.flip(0)), ["aten.flip.default", "add", "silu"]),
    "nearly": (lambda x: 0.5 * x * (1 + torch.tanh(0.79 * (x + 0.044715 * x**3))), None),
    "another gate": (lambda x: torch.sigmoid(x) * x.flip(0), None),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    function, wanted = ACTIVATIONS[name]
    ops = found(Function(lambda self, x: function(x)))
    assert ops == wanted if wanted else not {"gelu", "silu"} & set(ops)


def divided(self, x):
    return self.gamma * (x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6))


def by_sum(self, x):
    return x * ((x * x).sum(-1, keepdim=True) / WIDTH + 1e-5).rsqrt()


def kept_apart(self, x):
    return x * torch.rsqrt(x.pow(2).mean(-1) + 1e-6).unsqueeze(-1) * self.gamma


def layer_norm(self, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma + self.beta


def unit_length(self, x):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def moved(norm):
    """A library's norm, with a weight that does something."""
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, WIDTH))
    return norm


class Named(nn.Module):
    """A norm whose input has the name that all tests use."""

    def __init__(self, norm):
        super().__init__()
        self.norm = moved(norm)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", [LlamaRMSNorm, Gemma2RMSNorm, T5LayerNorm], ids=lambda c: c.__name__)
def test_norms_of_libraries_which_compute_in_float32(norm, dtype):
    ops = found(Named(norm(WIDTH)).to(dtype), dtype)
    assert ops == (["shift"] if norm is Gemma2RMSNorm else []) + ["rms_norm"]


@pytest.mark.parametrize("function", [divided, by_sum, kept_apart], ids=lambda f: f.__name__)
def test_rms_norms_by_hand(function):
    assert found(Function(function)) == ["rms_norm"]


def test_a_layer_norm_by_hand_takes_gamma_and_beta_along():
    assert found(Function(layer_norm)) == ["layer_norm"]


def test_rows_of_length_one_are_no_norm():
    assert "rms_norm" not in found(Function(unit_length))
