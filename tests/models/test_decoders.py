"""Decoders of many families with odd sizes against PyTorch in float64, and what their attention costs."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers
from tiny_models import VOCABULARY, compiled, secure_outputs
from torch import nn
from torch.nn import functional as F

import mpcc
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import front_end
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition
from tests.runtime.mp_spdz_here import needs_mp_spdz

RELATIVE = 5e-3  # of the largest logit
_OLD = {"GPT2": "n_inner", "GPTJ": "n_inner", "OPT": "ffn_dim", "GPTNeoX": "intermediate_size"}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decoder(name, *, width=60, heads=3, groups=1, layers=2, inner=64, **options):
    """A model by the name of its class, with scores and logits as large as those of trained ones."""
    torch.manual_seed(5)
    cls = getattr(transformers, name)
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers}
    own = next((key for family, key in _OLD.items() if name.startswith(family)), "intermediate_size")
    sizes |= {own: inner, "max_position_embeddings": 64}
    if own == "intermediate_size":
        sizes["num_key_value_heads"] = groups
    if name.startswith("OPT"):
        sizes["word_embed_proj_dim"] = width
    if "Sequence" in name:
        options["num_labels"] = 3
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = cls.config_class(vocab_size=VOCABULARY, **sizes, **special, **options)
    eager = name.startswith(("Gemma2", "GPTJ"))
    model = cls._from_config(config, attn_implementation="eager" if eager else "sdpa").eval()
    with torch.no_grad():
        for parameter in dict(model.named_parameters()).values():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * (1.2 * parameter.shape[-1] ** -0.5))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.get_input_embeddings().weight.mul_(0.8 * width**0.5)
    return model


def prompts(length, rows, side, count=3):
    """Inputs padded on one side, the first of them not at all."""
    generator = torch.Generator().manual_seed(length)
    result = []
    for i in range(count):
        ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
        mask, short = torch.ones_like(ids), 3 * i
        mask[-1, (slice(0, short) if side == "left" else slice(length - short, length))] = 0
        result.append({"input_ids": ids * mask, "attention_mask": mask})
    return result


def expected(model, inputs):
    """The logits in float64. Eager masks are the end of float32, which float64 cannot add up: there float32 decides."""
    eager = model.config._attn_implementation == "eager"
    with torch.no_grad():
        return (model if eager else copy.deepcopy(model).double())(**inputs).logits.double().numpy()


def check(name, length, rows, side, **options):
    """Compile a model and hold the logits of what is kept to PyTorch's."""
    model, inputs = decoder(name, **options), prompts(length, rows, side)
    program = compiled(model, inputs, profile="default")
    for one in inputs:
        want, got = expected(model, one), secure_outputs(program, one, "probabilistic")["logits"]
        read = one["attention_mask"].bool().numpy() if "Sequence" not in name else slice(None)
        assert np.abs(got - want)[read].max() < RELATIVE * np.abs(want[read]).max(), name
    return program


WINDOW = {"sliding_window": 5}
GEMMA = {"heads": 6, "groups": 2, "head_dim": 16}
TWELVE = {
    "GPT2LMHeadModel": (13, 2, "left", {}),
    "OPTForCausalLM": (13, 1, "right", {"width": 60, "heads": 5}),
    "GPTNeoXForCausalLM": (23, 1, "left", {"width": 96, "rotary_pct": 0.25}),
    "LlamaForCausalLM": (13, 2, "right", {}),
    "MistralForCausalLM": (23, 1, "left", {"width": 96, "heads": 6, "groups": 2, **WINDOW}),
    "Qwen2ForCausalLM": (13, 2, "left", {"heads": 5, "groups": 5}),
    "Qwen3ForSequenceClassification": (13, 2, "left", {"heads": 6, "groups": 2, "head_dim": 16}),
    "Gemma2ForCausalLM": (13, 1, "right", {**GEMMA, **WINDOW}),
    "Gemma3TextForSequenceClassification": (
        (13, 2, "right", {**GEMMA, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]})
    ),
    "Phi3ForCausalLM": (13, 1, "left", {"width": 96}),
    "GPTJForCausalLM": (13, 1, "right", {"rotary_dim": 8}),
    "GPT2ForSequenceClassification": (23, 2, "right", {"width": 96, "heads": 6}),
}

ON_PARTIES = ("GPT2LMHeadModel", "MistralForCausalLM", "Qwen3ForSequenceClassification", "Gemma2ForCausalLM")


@pytest.mark.slow
@pytest.mark.parametrize("name", TWELVE)
def test_families(name):
    length, rows, side, options = TWELVE[name]
    check(name, length, rows, side, **options)


@needs_mp_spdz
@pytest.mark.parametrize("name", ON_PARTIES)
def test_families_on_parties(name):
    """Three parties give what PyTorch gives, and send the bytes that were estimated."""
    length, rows, side, options = TWELVE[name]
    model, inputs = decoder(name, **{**options, "layers": 1}), prompts(length, rows, side)
    program = mpcc.compile(model, inputs[0], calibration=inputs)
    result = program.run(inputs[1], engine="mp-spdz")
    want, got = expected(model, inputs[1]), np.asarray(result.outputs["logits"])
    read = inputs[1]["attention_mask"].bool().numpy() if "Sequence" not in name else slice(None)
    assert np.abs(got - want)[read].max() < RELATIVE * np.abs(want[read]).max()
    assert result.measured is not None
    assert result.measured.bytes_online == program.cost().bytes_online


def test_a_tied_head_that_the_base_has_is_public():
    """GPT-2's head is its embedding: where the fine-tune left it alone, nothing of its size is private or shared."""
    base, inputs = decoder("GPT2LMHeadModel", layers=1, width=20, heads=5, inner=24), prompts(7, 2, "left")
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".h.0." in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    program = compiled(model, inputs, Partition.from_base(base), profile="default")
    for one in inputs:
        want, got = expected(model, one), secure_outputs(program, one, "probabilistic")["logits"]
        read = one["attention_mask"].bool().numpy()
        assert np.abs(got - want)[read].max() < RELATIVE * np.abs(want[read]).max()
    (head,) = [n for n in program.ring if n.op == "param" and n.type.shape[0] == VOCABULARY and len(n.type.shape) > 1]
    assert head.type.public
    assert not [n for n in program.ring if n.op == "input" and VOCABULARY in n.type.shape]


def test_grouped_heads_in_a_window():
    sizes = {"layers": 1, "width": 24, "heads": 6, "groups": 2, "inner": 24}
    program = check("MistralForCausalLM", 9, 1, "left", **sizes, sliding_window=3)
    (attention,) = [n for n in program.regions.mpc if n.op == "attention_seen"]
    keys = program.regions.mpc[attention.inputs[1]]
    assert (attention.attr("low"), attention.attr("high")) == (-2, 0)
    assert keys.type.shape == (1, 2, 1, 9, 4), "not repeated for the heads of a group"


def test_a_classifier_computes_one_token_of_the_last_layer():
    program = check("LlamaForSequenceClassification", 9, 2, "right", layers=1, width=24, heads=3, groups=1, inner=24)
    rows = {n.op: n.type.shape for n in program.regions.mpc if n.op in ("attention", "silu")}
    assert rows == {"attention": (2, 1, 3, 1, 8), "silu": (2, 1, 24)}


class Step(nn.Module):
    """Attention of three new positions, after cached ones: what a decoding step does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(24, n) for n in (24, 8, 8, 24))

    def turned(self, x, cos, sin):
        half = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def forward(self, x, past_k, past_v, cos, sin, mask):
        q, k, v = (layer(x).view(1, 3, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k = torch.cat([past_k, self.turned(k, cos, sin)], 2)
        q, v = self.turned(q, cos, sin), torch.cat([past_v, v], 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return {"logits": self.o(y.transpose(1, 2).reshape(1, 3, 24))}


def step_inputs(cached, additive):
    generator = torch.Generator().manual_seed(cached)
    x, past_k, past_v = (torch.randn(s, generator=generator) for s in ((1, 3, 24), (1, 2, 8, 4), (1, 2, 8, 4)))
    angles = (torch.arange(cached, cached + 3).float()[:, None] * torch.tensor([1.0, 0.1])).repeat(1, 2)[None, None]
    mask = torch.zeros(1, 1, 3, 11, dtype=torch.bool)
    mask[..., :cached] = True
    mask[..., 8:] = torch.ones(3, 3, dtype=torch.bool).tril()
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return {"x": x, "past_k": past_k, "past_v": past_v, "cos": angles.cos(), "sin": angles.sin(), "mask": mask}


@pytest.mark.parametrize("additive", [False, True])
def test_a_step_whose_tables_and_mask_are_public_inputs(additive):
    """Positions that everybody knows when the program runs: no product of two shares but those of attention itself."""
    model, inputs = Step().eval(), [step_inputs(n, additive) for n in (8, 5, 1)]
    program = compiled(model, inputs, public_inputs=("cos", "sin", "mask"))
    for one in inputs:
        want = model(**one)["logits"].detach().numpy()
        assert np.abs(secure_outputs(program, one, "probabilistic")["logits"] - want).max() < 1e-3
    graph, ring = program.regions.mpc, program.ring
    assert [n.op for n in graph if n.op.startswith("attention")] == ["attention_seen"]
    turned = [n for n in ring if n.op == "mul" and n.origin.graph_op == "mul"]
    assert turned and all(any(ring[i].type.public for i in n.inputs) for n in turned)


def test_what_a_new_model_of_the_config_holds_is_public_from_a_folder_too(tmp_path):
    """Rotary frequencies are in no checkpoint; tables and causal mask that follow from them are public."""
    decoder("LlamaForCausalLM", layers=1, width=24, inner=24).save_pretrained(tmp_path / "model")
    for source, example in ((tmp_path / "model", None), (decoder("LlamaModel", layers=1, width=24, inner=24), 7)):
        inputs = None if example is None else prompts(example, 1, "left")[0]
        captured = capture(source if inputs is not None else str(source), inputs, sequence_length=7)
        evidence = Partition.all_private().label(captured)
        assert [e.tensor for e in evidence if e.visibility == "public"] == [
            "model.rotary_emb.inv_freq" if inputs is None else "rotary_emb.inv_freq"
        ]
        prepared = front_end(captured, evidence, Options()).prepared
        tables = [n for n in prepared if n.op == "mul" and n.site == "mpc" and n.origin.layer.endswith("self_attn")]
        assert tables and all("public" in {prepared[i].visibility for i in n.inputs} for n in tables)
