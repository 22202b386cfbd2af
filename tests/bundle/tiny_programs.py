"""Tiny models, compiled once per test process."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, BertModel

import mpcc
from mpcc.program import Program

LENGTH, VOCABULARY = 8, 60
WORDS = ["[PAD]", "[UNK]", "a", "fine", "film", "bad", "dull"]
CONFIG = BertConfig(
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=2,
    intermediate_size=48,
    vocab_size=VOCABULARY,
    max_position_embeddings=20,
    initializer_range=0.2,
    pad_token_id=0,
    id2label={0: "bad", 1: "good"},
)


def tokenizer_json() -> str:
    """A word-level tokenizer whose own padding and truncation must not matter."""
    table = {word: i for i, word in enumerate(WORDS)}
    model = {"type": "WordLevel", "vocab": table, "unk_token": "[UNK]"}
    padding = {
        "strategy": {"Fixed": 32},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": padding,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": model,
        }
    )


def shaken(module: torch.nn.Module, seed: int = 5, only: str = "") -> torch.nn.Module:
    """Random norms and biases too, so that no private tensor looks like a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def classifier(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return shaken(BertForSequenceClassification(CONFIG).eval())


@functools.cache
def base_model() -> BertModel:
    torch.manual_seed(1)
    return shaken(BertModel(CONFIG).eval(), 6)


def frozen_prefix() -> BertForSequenceClassification:
    """The base with embeddings and layer 0 as they were, everything after them changed."""
    model = classifier(2)
    model.bert.load_state_dict(base_model().state_dict())
    for part in (model.bert.encoder.layer[1], model.bert.pooler):
        shaken(part, 7)
    return model


def lora() -> torch.nn.Module:
    model = classifier(3)
    model.bert.load_state_dict(base_model().state_dict())
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    torch.manual_seed(4)  # base_model() seeds too, but only when it is first called
    return shaken(get_peft_model(model, config).eval(), 8, "lora_")


def compiled(model: object, **options: object) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mpcc.compile(model, sequence_length=LENGTH, calibrate_random=4, **options)


@functools.cache
def private_program() -> Program:
    """Everything private, from a saved model with a tokenizer."""
    return compiled(str(saved_model()))


@functools.cache
def saved_model() -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="mpcc-test-")) / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mpcc.save(classifier(), path, tokenizer=tokenizer_json(), sequence_length=LENGTH)
    return path


@functools.cache
def prefix_program() -> Program:
    return compiled(frozen_prefix(), partition=mpcc.Partition.from_base(base_model()))


@functools.cache
def lora_program() -> Program:
    return compiled(lora(), partition=mpcc.Partition.from_peft(base_model()))


class Bag(torch.nn.Module):
    """The smallest text model: a public table, private weights after it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = torch.nn.Embedding(VOCABULARY, 4), torch.nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.out(self.table(input_ids).mean(1)))


@functools.cache
def small_program(seed: int = 0) -> Program:
    """A program of a few nodes, with a tokenizer: for tests that read or write it often."""
    torch.manual_seed(seed)
    rules = mpcc.Partition.from_rules({"public": ["table.*"]})
    example = {"input_ids": sample()["input_ids"]}
    made = mpcc.compile(Bag().eval(), example, rules, calibrate_random=4)
    assert made.bundle.client is not None
    client = replace(made.bundle.client, tokenizer_json=tokenizer_json())
    return Program(replace(made.bundle, client=client))


def sample(tokens: int = LENGTH, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def snapshot(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, hidden ones too."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"
        for p in sorted(folder.rglob("*"))
    }
