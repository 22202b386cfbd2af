"""Only what the architecture implies is public without evidence: the content shows it, or a new model has it, too."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from torch import nn

from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.export import save_model
from mpcc.compiler.frontend.implied import Rebuilt, implied, rebuilt_from, structural
from mpcc.compiler.frontend.numbers_in_code import numbers_in_code

HALF = torch.finfo(torch.float16).min


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.arange(6)[None], "positions"),
        (torch.arange(2, 9), "positions"),
        (torch.zeros(1, 6, dtype=torch.int64), "neutral"),
        (torch.ones(3, dtype=torch.bool), "neutral"),
        (torch.tensor(float("-inf")), "neutral"),
        (torch.tensor(HALF), "neutral"),
        (torch.tensor(1), "neutral"),
        (torch.ones(1, 1, 4, 4).tril().bool(), "triangular"),
        (torch.zeros(0), "empty"),
        (torch.tensor(0.7351234), ""),
        (torch.tensor(37), ""),
        (torch.full((5,), 0.25), ""),
        (torch.full((5,), 3, dtype=torch.int8), ""),
        (torch.arange(40, 49), ""),
        (torch.arange(6.0), ""),
        (torch.tensor([3, 1, 4]), ""),
        (torch.randperm(9, generator=torch.Generator().manual_seed(1)), ""),
        (torch.tensor([True, False, True]), ""),
        (torch.full((3,), float("nan")), ""),
    ],
)
def test_what_the_content_shows(tensor, reason):
    found = structural(tensor)
    assert reason in found and bool(reason) == bool(found)


def gpt2(**sizes):
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=9, n_positions=12, **sizes)
    return transformers.GPT2LMHeadModel(config).eval()


def llama():
    config = transformers.LlamaConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    return transformers.LlamaForCausalLM(config).eval()


def rebuilt(model) -> Rebuilt:
    found = rebuilt_from(model, type(model).__name__, model.config.to_dict())
    assert found is not None
    return found


def test_a_new_model_of_the_config_has_the_rotary_frequencies_and_no_other_numbers():
    model = llama()
    name, kept = next((n, b) for n, b in model.named_buffers() if n.endswith("inv_freq"))
    kinds = {name: "non_persistent_buffer"}
    assert "in a new LlamaForCausalLM" in implied({name: kept}, kinds, rebuilt(model))[name]
    assert not implied({name: kept * (1 + 1e-6)}, kinds, rebuilt(model))
    assert not implied({name: kept}, kinds, None)
    assert not implied({name: kept}, {name: "parameter"}, rebuilt(model))


def test_what_is_random_in_every_new_model_is_no_evidence():
    class Random(transformers.GPT2LMHeadModel):
        def __init__(self, config):
            super().__init__(config)
            self.table = torch.randn(4)

    model = Random(gpt2().config)
    built = Rebuilt(Random, model.config, sum(p.numel() for p in model.parameters()))
    assert not built.has("table", model.table)


def test_classes_of_other_libraries_are_not_built():
    """A constructor may read anything, a private table too."""

    class Secret(transformers.GPT2LMHeadModel):
        pass

    model = Secret(gpt2().config)
    assert rebuilt_from(model, "GPT2LMHeadModel", model.config.to_dict()) is None
    assert rebuilt_from(nn.Linear(2, 2), "Linear", {"a": 1}) is None
    assert rebuilt_from(None, "os.system", {"a": 1}) is None


def test_a_config_that_asks_for_too_much_is_not_built():
    config = gpt2().config.to_dict()
    assert rebuilt_from(None, "GPT2LMHeadModel", config | {"n_embd": 10**9}) is None
    large = rebuilt_from(None, "GPT2LMHeadModel", config | {"n_embd": 10**5, "n_inner": 10**6})
    assert large is not None and not large.has("transformer.h.0.attn.bias", torch.ones(1, 1, 12, 12).tril().bool())


class Numbers(nn.Module):
    """A scale that is a Python number, an epsilon and a secret scalar."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4, eps=3e-4)
        self.rate = 3.14159
        self.temp = torch.tensor(0.7351234)

    def forward(self, x):
        return self.norm(x) * self.rate * self.temp


def test_numbers_in_the_code_are_listed(tmp_path):
    captured = capture(Numbers(), {"x": torch.zeros(2, 4)})
    found = {(n.operation, n.attribute): n.value for n in numbers_in_code(captured.graph, captured.tensors)}
    assert found[("scale", "factor")] == 3.14159
    assert found[("layer_norm", "eps")] == 3e-4
    assert not any(abs(v - 0.7351234) < 1e-6 for v in found.values())
    save_model(Numbers(), tmp_path / "saved", {"x": torch.zeros(2, 4)})
    assert capture(tmp_path / "saved").implied == captured.implied == {}


class Filled(nn.Module):
    """A mask whose places are filled with infinity."""

    def forward(self, x):
        return torch.where(x > 0.25, x, -torch.inf).softmax(-1)


def test_only_finite_numbers_are_listed():
    captured = capture(Filled(), {"x": torch.zeros(2, 4)})
    assert any(n.op == "constant" for n in captured.graph) and -torch.inf in captured.tensors.values()
    found = [n.value for n in numbers_in_code(captured.graph, captured.tensors)]
    assert 0.25 in found and all(math.isfinite(v) for v in found)
