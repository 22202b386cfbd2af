"""Freezing, LoRA, merged heads and polynomials against plain PyTorch, for every family."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny_models import batches, tiny

from mpcc.compiler.errors import MpccError
from mpcc.marill import add_lora, approximate, freeze_layers, merge_heads
from mpcc.marill.activations import QuadGelu
from mpcc.marill.families import FAMILIES, attention_of, layers_of
from mpcc.marill.head_merging import attention_patterns, similar_groups
from mpcc.marill.saving import load, save
from mpcc.marill.structure import install, parse, structure_of

LLAMA = {"num_key_value_heads": 4, "heads": 8, "width": 32}
MODELS = [
    ("BertForSequenceClassification", {"heads": 4}),
    ("RobertaForSequenceClassification", {"heads": 4}),
    ("DistilBertForSequenceClassification", {"heads": 4}),
    ("GPT2LMHeadModel", {"heads": 4, "bos_token_id": None, "eos_token_id": None}),
    ("LlamaForCausalLM", LLAMA),
]
EVERY = pytest.mark.parametrize(("name", "options"), MODELS, ids=[name for name, _ in MODELS])
BERT = ("BertForSequenceClassification", {"heads": 4})


def model_of(name, options, layers=2):
    return tiny(name, layers=layers, **options)


def outputs(model, inputs):
    with torch.no_grad():
        return torch.cat([model(**x).logits.flatten() for x in inputs])


def far_apart(model):
    """What of the model's outputs merging may not touch: everything, so compare with a tolerance for float32."""
    return outputs(model, batches(6, 2))


@EVERY
def test_only_the_last_layers_and_the_head_learn(name, options):
    model = model_of(name, options, layers=3)
    assert freeze_layers(model, fraction=0.66) == 2
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    layers = {id(p) for layer in layers_of(model)[:2] for p in layer.parameters()}
    assert not {n for n, p in model.named_parameters() if id(p) in layers} & learns
    assert all(p.requires_grad for p in layers_of(model)[2].parameters())
    assert not any("embed" in n or ".wte." in n or ".wpe." in n for n in learns)


@pytest.mark.parametrize(
    "choice", [{"fraction": 1.5}, {"layers": 9}, {"layers": -1}, {}, {"fraction": 0.5, "layers": 1}]
)
def test_a_wrong_number_of_frozen_layers_is_refused(choice):
    with pytest.raises(MpccError):
        freeze_layers(model_of(*BERT), **choice)


@EVERY
def test_factor_one_changes_nothing(name, options):
    model = model_of(name, options)
    before = far_apart(model)
    merge_heads(model, 1, batches(6, 2))
    install(model, {0: parse({"version": 1, "layers": {"0": {"groups": [[0], [1], [2], [3]]}}})[0]})
    assert torch.allclose(far_apart(model), before, atol=1e-6)


@EVERY
@pytest.mark.parametrize("grouping", ["similar", "adjacent"])
def test_merged_heads_are_one_softmax_over_summed_scores(name, options, grouping):
    """Against the formula, from the queries, keys and values that the unmerged layer computes itself."""
    model = model_of(name, options, layers=1)
    inputs = batches(6, 2)[1]
    seen = {}

    def formula(module, query, key, value, attention_mask, scaling=None, **kwargs):
        seen["qkv"] = query, key, value, attention_mask, scaling
        repeats = query.shape[1] // key.shape[1]
        out = torch.zeros_like(query)
        mask = attention_mask
        for group in groups[0]:
            for j in range(repeats):
                heads = [h * repeats + j for h in group]
                scores = sum(query[:, q] @ key[:, k].transpose(1, 2) for q, k in zip(heads, group, strict=True))
                scores = scores / math.sqrt(len(group)) * scaling
                if mask is not None:
                    scores = scores.masked_fill(~mask[:, 0], -1e9)
                for q, k in zip(heads, group, strict=True):
                    out[:, q] = scores.softmax(-1) @ value[:, k]
        return out.transpose(1, 2).contiguous(), None

    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    merged = copy.deepcopy(model)
    groups = merge_heads(merged, 2, batches(6, 2), grouping)
    AttentionInterface.register("by_the_formula", formula)
    AttentionMaskInterface.register("by_the_formula", sdpa_mask)
    model.set_attn_implementation("by_the_formula")
    assert torch.allclose(outputs(merged, [inputs]), outputs(model, [inputs]), atol=2e-5)
    assert seen["qkv"][0].shape[1] == model.config.num_attention_heads


@EVERY
def test_merging_keeps_every_parameter(name, options):
    model = model_of(name, options)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    merge_heads(model, 4, batches(6, 2))
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)


def test_similar_heads_come_together():
    """Two heads that are copies of each other attend alike, wherever they stand."""
    model = model_of(*BERT, layers=1)
    attention = attention_of(model, 0)
    with torch.no_grad():
        for linear in (attention.query, attention.key):
            for copy_, original in ((2, 0), (3, 1)):
                linear.weight[4 * copy_ : 4 * copy_ + 4] = linear.weight[4 * original : 4 * original + 4]
                linear.bias[4 * copy_ : 4 * copy_ + 4] = linear.bias[4 * original : 4 * original + 4]
    assert merge_heads(model, 2, batches(6, 2))[0] == ((0, 2), (1, 3))


def test_groups_maximise_similarity_inside():
    similarity = -torch.tensor([[0, 9, 1, 9], [9, 0, 9, 2], [1, 9, 0, 9], [9, 2, 9, 0.0]])
    assert similar_groups(similarity, 2) == ((0, 2), (1, 3))


def test_measuring_patterns_leaves_the_model_as_it_was():
    model = model_of(*BERT)
    before = model.config._attn_implementation
    found = attention_patterns(model, batches(6, 2)[1], [0, 1])
    assert {k: tuple(v.shape) for k, v in found.items()} == {0: (2, 4, 6, 6), 1: (2, 4, 6, 6)}
    assert torch.allclose(found[0].sum(-1), torch.ones(2, 4, 6))
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("factor", "options", "said"),
    [
        (3, {}, "3 does not divide 4"),
        (0, {}, "does not divide"),
        (2, {"grouping": "best"}, "unknown grouping"),
        (2, {"calibration": None}, "calibration"),
    ],
)
def test_wrong_merging_is_refused(factor, options, said):
    with pytest.raises(MpccError, match=said):
        merge_heads(model_of(*BERT), factor, **{"calibration": batches(6, 2), **options})


def test_key_value_heads_decide_what_divides():
    with pytest.raises(MpccError, match="4 key-value heads"):
        merge_heads(model_of("LlamaForCausalLM", LLAMA), 8, batches(6, 2))


def test_merging_twice_is_refused():
    model = model_of(*BERT)
    merge_heads(model, 2, batches(6, 2))
    with pytest.raises(MpccError, match="merged already"):
        merge_heads(model, 2, batches(6, 2))


@pytest.mark.parametrize("form", ["2quad", "2relu"])
@EVERY
def test_polynomial_softmax_is_its_formula(name, options, form):
    """Against the weights spelled out, with the mask on them, on one layer."""
    model = model_of(name, options, layers=1)
    plain = copy.deepcopy(model)
    approximate(model, softmax=form)

    def formula(module, query, key, value, attention_mask, scaling=None, **kwargs):
        repeats = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
        scores = query @ key.transpose(-1, -2) * scaling
        weights = (scores + 5) ** 2 if form == "2quad" else scores.clamp(min=0)
        keep = torch.ones_like(scores) if attention_mask is None else attention_mask.to(scores.dtype)
        if module.is_causal:
            keep = keep * torch.ones(scores.shape[-2:]).tril()
        weights = weights * keep
        return (weights / (weights.sum(-1, keepdim=True) + 2**-6) @ value).transpose(1, 2).contiguous(), None

    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("polynomial_formula", formula)
    AttentionMaskInterface.register("polynomial_formula", sdpa_mask)
    plain.set_attn_implementation("polynomial_formula")
    inputs = batches(6, 2)
    assert torch.allclose(outputs(model, inputs), outputs(plain, inputs), atol=1e-4)


def test_quad_is_its_polynomial():
    x = torch.linspace(-4, 4, 33)
    assert torch.allclose(QuadGelu()(x), 0.125 * x**2 + 0.25 * x + 0.5, atol=1e-6)


def test_silu_is_no_gelu():
    with pytest.raises(MpccError, match="SiLU"):
        approximate(model_of("LlamaForCausalLM", LLAMA), gelu="quad")


@EVERY
def test_frozen_layers_compute_what_they_did(name, options):
    """Merging and polynomials touch the layers that learn, and nothing before them."""
    model = model_of(name, options, layers=3)
    inputs = batches(6, 2)[1]
    with torch.no_grad():
        before = model(**inputs, output_hidden_states=True).hidden_states
    freeze_layers(model, layers=2)
    merge_heads(model, 2, batches(6, 2))
    approximate(model, softmax="2quad")
    assert set(structure_of(model)) == {2}
    with torch.no_grad():
        after = model(**inputs, output_hidden_states=True).hidden_states
    for one, two in zip(before[:3], after[:3], strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert not torch.allclose(before[3], after[3], atol=1e-3)


@EVERY
def test_lora_adapts_private_layers_only(name, options):
    model = model_of(name, options, layers=2)
    freeze_layers(model, layers=1)
    before = outputs(model, batches(6, 2))
    adapted = add_lora(model, 2).eval()
    assert torch.allclose(outputs(adapted, batches(6, 2)), before, atol=1e-6)
    learns = [n for n, p in adapted.named_parameters() if p.requires_grad]
    family = FAMILIES[model.config.model_type]
    inside = [n for n in learns if f"{family.layers}." in n]
    assert len(inside) == 2 * len(family.linears) and all(f"{family.layers}.1." in n for n in inside)
    assert all("lora_" in n or "modules_to_save" in n for n in learns)


@pytest.mark.parametrize(("options", "said"), [({"rank": 0}, "rank"), ({"rank": 2, "targets": "qkv"}, "cannot adapt")])
def test_wrong_lora_is_refused(options, said):
    with pytest.raises(MpccError, match=said):
        add_lora(model_of(*BERT), **options)


@EVERY
def test_a_saved_model_computes_the_same(name, options, tmp_path):
    model = model_of(name, options, layers=2)
    freeze_layers(model, layers=1)
    merge_heads(model, 2, batches(6, 2))
    approximate(model, gelu=None if "Llama" in name else "quad", softmax="2quad")
    save(model, tmp_path / "model")
    opened = load(tmp_path / "model").eval()
    assert torch.allclose(outputs(opened, batches(6, 2)), outputs(model, batches(6, 2)), atol=1e-6)
    assert structure_of(opened) == structure_of(model)


def test_a_saved_adapter_computes_the_same(tmp_path):
    model = model_of(*BERT, layers=2)
    model.base_model.save_pretrained(tmp_path / "base")
    freeze_layers(model, layers=1)
    adapted = add_lora(model, 2).eval()
    with torch.no_grad():
        for n, p in adapted.named_parameters():
            if "lora_B" in n:
                p.add_(0.1 * torch.randn_like(p))
    merge_heads(adapted, 2, batches(6, 2))
    approximate(adapted, gelu="quad", softmax="2quad")
    save(adapted, tmp_path / "adapter")
    opened = load(tmp_path / "adapter", tmp_path / "base").eval()
    assert torch.allclose(outputs(opened, batches(6, 2)), outputs(adapted, batches(6, 2)), atol=1e-6)


@pytest.mark.parametrize(
    "entry",
    [
        {"version": 2, "layers": {}},
        {"version": 1},
        {"version": 1, "layers": {"0": {"heads": 3}}},
        {"version": 1, "layers": {"0": {"softmax": "exp"}}},
        {"version": 1, "layers": {"x": {}}},
    ],
)
def test_a_structure_of_unknown_kind_is_refused(entry):
    with pytest.raises(MpccError):
        parse(entry)


def test_groups_have_to_hold_every_head_once():
    with pytest.raises(MpccError, match="each of its 4 heads once"):
        install(model_of(*BERT), parse({"version": 1, "layers": {"0": {"groups": [[0, 1], [1, 2]]}}}))
