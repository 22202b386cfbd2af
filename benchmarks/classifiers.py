"""The sentiment classifier in sizes that every protocol can pay for, with its inputs, as files that `mpcc` reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, BertModel

from examples.sentiment.data import base_folder, load_split, model_inputs

TRAINED = Path("build/sentiment/model")
RANK, CALIBRATION_INPUTS = 8, 64
LAST_LAYER_LINEARS = r".*\.layer\.5\..*(query|key|value|dense)|.*pooler\.dense"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Shape:
    """A variant of the trained classifier: tokens per review, and what of its six layers stays private.

    `private_layers` counts from the end; with `lora`, the private part of layer and pooler is a low-rank difference
    from the base (and the classifier).
    """

    name: str
    title: str
    tokens: int
    private_layers: int
    lora: bool = False


SHAPES: Mapping[str, Shape] = {
    s.name: s
    for s in (
        Shape("whole", "64 tokens, 2 private layers (the example as it is)", 64, 2),
        Shape("small", "16 tokens, 1 private layer", 16, 1),
        Shape("lora", "16 tokens, 1 layer with private adapters of rank 8", 16, 1, lora=True),
    )
}


@dataclass(frozen=True)
class Files:
    """Where a shape's model (or adapter) and inputs stand, and the same model for PyTorch."""

    model: Path
    reviews: Path
    calibration: Path
    torch_model: torch.nn.Module


def write_shape(shape: Shape, folder: Path, reviews: int) -> Files:
    """Write model, held-out reviews and calibration inputs of a shape into `folder`.

    Raises:
        FileNotFoundError: the classifier has not been trained.
    """
    if not TRAINED.is_dir():
        raise FileNotFoundError(f"{TRAINED} is missing: make it with python -m examples.sentiment.train")
    folder.mkdir(parents=True, exist_ok=True)
    model = lora_classifier() if shape.lora else classifier(shape.private_layers)
    files = Files(folder / "model", folder / "reviews.json", folder / "calibration.json", model.train(False))
    shutil.rmtree(files.model, ignore_errors=True)
    model.save_pretrained(files.model)  # type: ignore[operator]
    for name in _TOKENIZER:
        shutil.copyfile(TRAINED / name, files.model / name)
    split = load_split()
    for path, chosen in ((files.reviews, split.held_out[:reviews]), (files.calibration, split.train)):
        texts = [review.text for review in chosen][:CALIBRATION_INPUTS]
        path.write_text(json.dumps(model_inputs(texts, shape.tokens)), "utf-8")
    return files


def classifier(private_layers: int) -> BertForSequenceClassification:
    """The trained classifier with the base's weights in all layers but the last ones."""
    model = _load(TRAINED)
    base = BertModel.from_pretrained(base_folder())
    for own, public in list(zip(model.bert.encoder.layer, base.encoder.layer, strict=True))[:-private_layers]:
        own.load_state_dict(public.state_dict())
    return model


def lora_classifier() -> torch.nn.Module:
    """The base with adapters on the last layer and the pooler: the best rank-8 part of what training changed there."""
    trained = _load(TRAINED)
    model = _load(base_folder(), trained.config.id2label)
    model.classifier.load_state_dict(trained.classifier.state_dict())
    config = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=RANK, target_modules=LAST_LAYER_LINEARS)
    wrapped = get_peft_model(model, config)
    after = dict(trained.named_modules())
    for name, module in wrapped.named_modules():
        if hasattr(module, "lora_A"):
            change = after[name.removeprefix("base_model.model.")].weight - module.base_layer.weight
            left, sizes, right = torch.linalg.svd(change.detach(), full_matrices=False)
            with torch.no_grad():
                module.lora_A["default"].weight.copy_(right[:RANK])
                module.lora_B["default"].weight.copy_(left[:, :RANK] * sizes[:RANK])
    return wrapped


def _load(folder: Path, labels: Mapping[Any, str] | None = None) -> BertForSequenceClassification:
    named: dict[str, Any] = (
        {} if labels is None else {"id2label": dict(labels), "label2id": {v: k for k, v in labels.items()}}
    )
    model: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(folder, **named)
    model.train(False)
    return model
