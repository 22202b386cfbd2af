"""Tiny causal models that were fine-tuned from an open base, and their programs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import transformers

import mpcc
from mpcc.api import compile_generation
from mpcc.generation import Generator

VOCABULARY, PROMPT, CACHE, DRAFT = 40, 6, 22, 2
_SIZES = {"vocab_size": VOCABULARY, "initializer_range": 0.25, "bos_token_id": None, "eos_token_id": None}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        **_SIZES,
    ),
    "gpt2": lambda: transformers.GPT2Config(n_embd=24, n_layer=2, n_head=3, n_positions=64, **_SIZES),
}


@dataclass(frozen=True)
class Made:
    """A fine-tuned model, its base, and the program of it."""

    tuned: torch.nn.Module
    base: torch.nn.Module
    program: Generator

    def draft(self, tokens, wanted):
        return greedy(self.base, tokens, wanted)


def greedy(model, tokens, count):
    """The next tokens by the model in clear."""
    ids = torch.tensor([list(tokens)])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(tokens) :].tolist()


def models(kind, seed=0):
    """(fine-tuned, base): the last layer differs."""
    torch.manual_seed(seed)
    base = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".1." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return tuned, base


def made(kind, folder=None, **choices):
    """The program; with a folder the first layer is public, else all is private."""
    tuned, base = models(kind)
    partition = mpcc.Partition.all_private()
    if folder is not None:
        base.save_pretrained(folder)
        partition = mpcc.Partition.from_base(folder)
    torch.manual_seed(1)
    texts = [torch.randint(0, VOCABULARY, (n,)).tolist() for n in (PROMPT, PROMPT - 1, PROMPT)]
    sizes = {"prompt_tokens": PROMPT, "cache_tokens": CACHE, "draft_tokens": DRAFT}
    return Made(tuned, base, compile_generation(tuned, texts, partition, **sizes, **choices))


def prompts(count):
    torch.manual_seed(2)
    return [torch.randint(0, VOCABULARY, (n,)).tolist() for n in range(1, count + 1)]
