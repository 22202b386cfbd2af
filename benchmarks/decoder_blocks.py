"""What the blocks of decoders cost beside BERT's: activations by element, norms by token and by use.

    python -m benchmarks.decoder_blocks [--protocol ring] [--profile default]

Two layers of width 16 and 64 on 8 tokens, random weights, all private. BERT's norms follow the residual sums, so that
their mean is folded into weights; the others are pre-norms. Bytes and rounds are those of the cost model, which are
those that parties measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import torch
import transformers
import typer

import mpcc

TOKENS, WIDTH, INNER, LAYERS = 8, 16, 64, 2
ACTIVATION = re.compile(r"\.(act|act_fn|intermediate_act_fn)$")
NORM = re.compile(r"(\.ln_\w+|layernorm|LayerNorm|\.norm)$")


def models() -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, model) of each family, the same sizes and the same scale of weights."""
    torch.manual_seed(0)
    common = {"vocab_size": 64, "initializer_range": 0.1, "pad_token_id": 2}
    heads = {"num_hidden_layers": LAYERS, "num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": INNER}
    gpt2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_inner": INNER, "n_positions": 16}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    yield "BERT", transformers.BertModel(transformers.BertConfig(**common, **heads), add_pooling_layer=False)
    yield "GPT-2", transformers.GPT2Model(transformers.GPT2Config(**common, **gpt2, **ends))
    yield "LLaMA", transformers.LlamaModel(transformers.LlamaConfig(**common, **heads, num_key_value_heads=1))


def main(protocol: str = "ring", profile: Annotated[str, typer.Option(help="safe, default or fast")] = "default") -> None:
    """Print one row for each family."""
    print(f"| {protocol}, {profile} | activation: B an element | rounds a use | norm: B a token | rounds a use |")
    print("|---|---|---|---|---|")
    for name, model in models():
        ids = torch.randint(3, 64, (4, 1, TOKENS))
        samples = [{"input_ids": i, "attention_mask": torch.ones_like(i)} for i in ids]
        program = mpcc.compile(
            model.eval(), example_inputs=samples[0], calibration=samples, protocol=protocol, profile=profile
        )
        rows = program.cost(by="layer").by("layer")
        norms = 2 * LAYERS + (0 if name == "BERT" else 1)  # the client computes that of BERT's embeddings
        active = [(b, r) for layer, b, r in rows if ACTIVATION.search(layer)]
        normed = [(b, r) for layer, b, r in rows if NORM.search(layer)]
        print(
            f"| {name} | {sum(b for b, _ in active) / (LAYERS * TOKENS * INNER):.1f} "
            f"| {sum(r for _, r in active) / LAYERS:.1f} "
            f"| {sum(b for b, _ in normed) / (norms * TOKENS):.0f} | {sum(r for _, r in normed) / norms:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
