"""Decoders of several families, as language models: next-token scores against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tiny_models import batches, compiled, secure_outputs

WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
GROUPED = {**WIDE, "num_key_value_heads": 1}
CONFIGS = {
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 40, "n_positions": 32},
    "OPT": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 40,
        "word_embed_proj_dim": 16,
    },
    "GPTNeoX": WIDE,
    "Llama": GROUPED,
    "Mistral": {**GROUPED, "head_dim": 8},
    "Qwen2": GROUPED,
    "Gemma": {**GROUPED, "head_dim": 8},
}
NORMS = {"OPT": "layer_norm", "GPT2": "layer_norm", "GPTNeoX": "layer_norm"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CONFIGS)
def test_next_tokens(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=40,
        initializer_range=0.1,
        init_std=0.1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **CONFIGS[family],
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    inputs = batches(7, count=3)
    program = compiled(model, inputs, profile="default")
    ops = {node.op for node in program.regions.mpc}
    assert not ops & {"square", "rsqrt", "tanh", "sigmoid"}, "norms and activations are operations of their own"
    plain = [n for n in program.regions.mpc if n.op == NORMS.get(family, "rms_norm")]
    assert plain and all(len(n.inputs) == 1 for n in plain), "products have taken gamma and beta"
    for one in inputs:
        with torch.no_grad():
            exact = model.double()(**one).logits.numpy()
        error = np.abs(secure_outputs(program, one, "probabilistic")["logits"] - exact)
        kept = one["attention_mask"].bool().numpy()
        assert error[kept].max() <= 5e-3 * max(1.0, np.abs(exact).max())
