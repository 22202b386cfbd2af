"""Recipes of `mpcc finetune`: a TOML file, read strictly.

task = "classification"            # or "language-modelling"
base = "minilm/"                   # folder; paths are relative to the recipe
seed = 0

[data]
train = "train.jsonl"              # JSON lines or CSV, by the suffix
eval = "eval.jsonl"
text = "text"                      # columns
label = "label"
tokens = 48                        # at most so many of each text

[train]                            # rates and epochs of the fine-tuning itself
[techniques]
freeze = 4                         # layers, or a fraction between 0 and 1
lora = {rank = 8}                  # tables, see the classes below; leave out what is not wanted
merge_heads = {factor = 4}
approximate = {gelu = "quad", softmax = "2quad"}
distill = {epochs = 2}
[report]
protocols = ["ring"]               # estimate the cost of inference
"""

from __future__ import annotations

import difflib
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mpcc.compiler.errors import MpccError
from mpcc.compiler.toml_file import read_toml
from mpcc.marill.distillation import DistillOptions
from mpcc.marill.training import TrainOptions

TASKS = ("classification", "language-modelling")


@dataclass(frozen=True)
class Data:
    """Where texts and labels are; `label` is not read for language modelling, `limit` takes the first rows only."""

    train: Path
    eval: Path
    text: str = "text"
    label: str = "label"
    tokens: int = 64
    limit: int | None = None


@dataclass(frozen=True)
class Train:
    """Of the fine-tuning itself; a checkpoint is written every `checkpoint_seconds`."""

    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    bfloat16: bool = False
    max_gradient_norm: float | None = 1.0
    checkpoint_seconds: float = 20.0


@dataclass(frozen=True)
class Lora:
    """See `mpcc.marill.add_lora`."""

    rank: int = 8
    targets: str | list[str] = "all"
    alpha: int | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class MergeHeads:
    """See `mpcc.marill.merge_heads`; `calibration` is the number of training texts to compare heads on."""

    factor: int
    grouping: str = "similar"
    calibration: int = 64


@dataclass(frozen=True)
class Approximate:
    """See `mpcc.marill.approximate`."""

    gelu: str | None = None
    softmax: str | None = None


@dataclass(frozen=True)
class Distill:
    """See `mpcc.marill.distill`."""

    epochs: int = 2
    hidden_epochs: int = 1
    learning_rate: float = 2e-4
    hidden_learning_rate: float | None = None
    label_weight: float = 0.3
    temperature: float = 2.0


@dataclass(frozen=True)
class Techniques:
    """What is done to the model; None leaves a technique out."""

    freeze: int | float = 0
    lora: Lora | None = None
    merge_heads: MergeHeads | None = None
    approximate: Approximate | None = None
    distill: Distill | None = None


@dataclass(frozen=True)
class Report:
    """Protocols to estimate the cost of one inference for, at `tokens` tokens (by default as many as in training)."""

    protocols: list[str] = field(default_factory=list)
    tokens: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole recipe."""

    data: Data
    task: str = "classification"
    base: Path | None = None
    seed: int = 0
    train: Train = field(default_factory=Train)
    techniques: Techniques = field(default_factory=Techniques)
    report: Report = field(default_factory=Report)

    def train_options(self) -> TrainOptions:
        """Options of the fine-tuning itself."""
        t = self.train
        return TrainOptions(
            t.epochs,
            t.batch_size,
            t.learning_rate,
            t.weight_decay,
            t.warmup,
            self.seed,
            t.bfloat16,
            t.max_gradient_norm,
        )

    def distill_options(self) -> DistillOptions:
        """Options of distillation; batches and decay are those of the fine-tuning."""
        d = self.techniques.distill or Distill()
        train = replace(self.train_options(), epochs=d.epochs, learning_rate=d.learning_rate)
        return DistillOptions(train, d.hidden_epochs, d.hidden_learning_rate, d.label_weight, d.temperature)


def read_recipe(path: Path, base: Path | None = None) -> Recipe:
    """The recipe in a file; `base` replaces the one that it names.

    Raises:
        MpccError: not readable, not TOML, an unknown key, a value of the wrong kind or out of range.
    """
    table = read_toml(path, "the recipe")
    recipe: Recipe = _built(Recipe, table, path, "")
    recipe = replace(recipe, base=base or recipe.base)
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    if recipe.task not in TASKS:
        raise MpccError(
            f"unknown task {recipe.task[:40]!r}", where=path.name, todo=f"choose one of: {', '.join(TASKS)}"
        )
    if recipe.base is None:
        raise MpccError("the recipe names no base model", where=path.name, todo="add base = FOLDER, or give --base")
    chosen = recipe.techniques
    positive: dict[str, float | None] = {
        "data.tokens": recipe.data.tokens,
        "train.epochs": recipe.train.epochs,
        "train.batch_size": recipe.train.batch_size,
        "train.learning_rate": recipe.train.learning_rate,
        "data.limit": recipe.data.limit,
        "train.max_gradient_norm": recipe.train.max_gradient_norm,
    }
    if chosen.distill is not None:
        positive |= {
            "techniques.distill.epochs": chosen.distill.epochs,
            "techniques.distill.learning_rate": chosen.distill.learning_rate,
            "techniques.distill.temperature": chosen.distill.temperature,
        }
    if chosen.merge_heads is not None:
        positive["techniques.merge_heads.calibration"] = chosen.merge_heads.calibration
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise MpccError(f"{key} is {value}; it has to be above zero", where=path.name)
    if chosen.distill is not None and chosen.merge_heads is None and chosen.approximate is None:
        raise MpccError(
            "distillation is for a model that merge_heads or approximate changed; the recipe has neither",
            where=path.name,
            todo="add one of them, or take distill out",
        )


def _built(cls: Any, table: Mapping[str, Any], path: Path, where: str) -> Any:
    """A dataclass from a TOML table; every key has to be a field."""
    known = {f.name: f for f in fields(cls)}
    hints = get_type_hints(cls)
    for key in table:
        if key not in known:
            what = "technique" if cls is Techniques else "key"
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise MpccError(f"unknown {what} {key[:60]!r} in {where or 'the recipe'}", where=path.name, todo=hint)
    for name, f in known.items():
        if name not in table and f.default is MISSING and f.default_factory is MISSING:
            raise MpccError(f"{f'{where}.' if where else ''}{name} is missing", where=path.name)
    values = {k: _value(hints[k], v, path, f"{where}.{k}" if where else k) for k, v in table.items()}
    return cls(**values)


def _is_number(value: object) -> bool:
    """Whether a value is a number that a float can be."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # false of nan, too


def _value(kind: Any, value: Any, path: Path, where: str) -> Any:
    """A value of one of the allowed kinds."""
    allowed = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for one in allowed:
        plain = get_origin(one) or one
        if is_dataclass(plain) and isinstance(value, Mapping):
            return _built(plain, value, path, where)
        if plain is Path and isinstance(value, str):
            return path.parent / Path(value).expanduser()
        if plain is list and isinstance(value, list) and all(isinstance(v, str) for v in value):
            return value
        if plain is float and _is_number(value) and int not in allowed:
            return float(value)
        if plain in (int, float, str, bool) and type(value) is plain:
            return value
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        list: "a list of texts",
        bool: "true or false",
    }
    wanted = dict.fromkeys(names.get(get_origin(k) or k, "a table") for k in allowed if k is not type(None))
    raise MpccError(f"{where} has to be {' or '.join(wanted)}", where=path.name)
