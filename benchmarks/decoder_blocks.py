"""What the blocks of decoders cost beside BERT's: activations by element, norms by token and by use.

    python -m benchmarks.decoder_blocks [--protocol ring] [--profile default]

Two layers of width 16 and 64 on 8 tokens, random weights, all private, five norms each. On a network
without delay and in one number format the forms that send least are chosen: which others a delay would make faster
depends on the rest of a model. Bytes and rounds are those of the cost model, which are those
that parties measure; products that fold_affine puts in the place of a norm's mean are not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import torch
import transformers
import typer

import mpcc
from mpcc.compiler.cost import Cost, Network
from mpcc.compiler.driver.options import PROFILES

TOKENS, WIDTH, INNER, LAYERS, NORMS = 8, 16, 64, 2, 5
WITHOUT_DELAY = Network("no delay", 1e9, 0.0)
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


def main(
    protocol: str = "ring", profile: Annotated[str, typer.Option(help="safe, default or fast")] = "default"
) -> None:
    """Print one row for each family."""
    print(f"| {protocol}, {profile} | activation: B an element | rounds a use | norm: B a token | rounds a use |")
    print("|---|---|---|---|---|")
    for name, model in models():
        ids = torch.randint(3, 64, (4, 1, TOKENS))
        samples = [{"input_ids": i, "attention_mask": torch.ones_like(i)} for i in ids]
        program = mpcc.compile(
            model.eval(),
            example_inputs=samples[0],
            calibration=samples,
            protocol=protocol,
            profile=profile,
            frac_bits=PROFILES[profile].frac_bits,
            network=WITHOUT_DELAY,
        )
        cost = program.cost()
        active, normed = _sum(cost, ACTIVATION), _sum(cost, NORM)
        print(
            f"| {name} | {active[0] / (LAYERS * TOKENS * INNER):.0f} | {active[1] / LAYERS:.1f} "
            f"| {normed[0] / (NORMS * TOKENS):.0f} | {normed[1] / NORMS:.1f} |",
            flush=True,
        )


def _sum(cost: Cost, layers: re.Pattern[str]) -> tuple[int, int]:
    """(bytes of all parties, rounds of the busiest) of the layers, but for their matrix products."""
    rows = [r for r in cost.rows if layers.search(r.layer) and not r.operation.startswith("linear")]
    return sum(r.bytes for r in rows), sum(max(r.rounds_by_party) for r in rows)


if __name__ == "__main__":
    typer.run(main)
