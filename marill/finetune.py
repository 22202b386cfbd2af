"""`mpcc finetune`: from a recipe to a model folder that `mpcc compile --base` takes, and a report.

Work in progress lives in `OUT.work` beside the result: checkpoints, and a digest of everything that the result depends
on. The same command goes on from there, and gives the same bytes. OUT appears when it is complete.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpcc.compiler.errors import MpccError
from mpcc.marill.approximations import approximate
from mpcc.marill.checkpoints import Checkpoints
from mpcc.marill.data import examples, tokenizer_of
from mpcc.marill.distillation import distill
from mpcc.marill.families import family_of, layers_of
from mpcc.marill.freezing import freeze_layers
from mpcc.marill.head_merging import merge_heads
from mpcc.marill.lora import add_lora
from mpcc.marill.prefix import Example, cache_prefix, pad_id, padded_ids
from mpcc.marill.recipe import Recipe
from mpcc.marill.report import Report, costs, describe, write_report
from mpcc.marill.saving import save
from mpcc.marill.training import Progress, Score, evaluate, fine_tune, silent

DIGEST_FILE = "digest"
_CLASSES = {"classification": "AutoModelForSequenceClassification", "language-modelling": "AutoModelForCausalLM"}


@dataclass(frozen=True)
class _Work:
    """What all stages share."""

    recipe: Recipe
    frozen: int
    train: list[Example]
    held_out: list[Example]
    checkpoints: Checkpoints
    progress: Progress


def finetune(recipe: Recipe, out: Path, progress: Progress = silent) -> Report:
    """Run a recipe; goes on where an interrupted run of the same recipe stopped.

    Raises:
        MpccError: see the stages; OUT is then not written.
    """
    if out.exists():
        raise MpccError("the output exists already", where=str(out), todo="remove it, or name another with -o")
    if not out.parent.is_dir():
        raise MpccError("the folder to write to does not exist", where=str(out.parent))
    base = _base(recipe)
    train, held_out, names = examples(recipe.data, recipe.task, tokenizer_of(base))
    torch.manual_seed(recipe.seed)
    model = open_base(base, recipe.task, names)
    _check_lengths(model, recipe)
    frozen = _freeze(model, recipe)
    _rehearse(model, recipe)
    work_folder = out.with_name(out.name + ".work")
    resumed = _prepare(work_folder, digest(recipe, base))
    checkpoints = Checkpoints(work_folder, recipe.train.checkpoint_seconds)
    cached = [
        cache_prefix(model, frozen, part, lambda done, total: progress("frozen layers", done, total))
        for part in (train, held_out)
    ]
    work = _Work(recipe, frozen, cached[0], cached[1], checkpoints, progress)
    student, scores = _train(model, work)
    report = describe(recipe, student, frozen, scores, resumed)
    report = replace(report, costs=costs(student, base, recipe, train))
    beside = out.with_name(out.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    save(student, beside, base)
    write_report(report, beside)
    beside.replace(out)
    shutil.rmtree(work_folder)
    return report


def _train(model: nn.Module, work: _Work) -> tuple[nn.Module, dict[str, Score]]:
    """(the model to save, scores by stage)."""
    recipe, chosen = work.recipe, work.recipe.techniques
    if chosen.lora is not None:
        model = add_lora(model, chosen.lora.rank, chosen.lora.targets, chosen.lora.alpha, chosen.lora.dropout)
    changes = chosen.merge_heads is not None or chosen.approximate is not None
    if changes and chosen.distill is None:
        _change(model, recipe, work.train)
    fine_tune(
        model, work.frozen, work.train, recipe.train_options(), checkpoints=work.checkpoints, progress=work.progress
    )
    scores = {"fine-tuned": evaluate(model, work.frozen, work.held_out)}
    if not changes or chosen.distill is None:
        return model, scores
    student = copy.deepcopy(model)
    _change(student, recipe, work.train)
    scores["changed, not yet trained"] = evaluate(student, work.frozen, work.held_out)
    distill(
        model,
        student,
        work.train,
        work.frozen,
        recipe.distill_options(),
        checkpoints=work.checkpoints,
        progress=work.progress,
    )
    scores["distilled"] = evaluate(student, work.frozen, work.held_out)
    return student, scores


def _change(model: nn.Module, recipe: Recipe, data: Sequence[Example]) -> None:
    """Merge heads and put in polynomials."""
    merging, forms = recipe.techniques.merge_heads, recipe.techniques.approximate
    if merging is not None:
        inputs = calibration_inputs(data[: merging.calibration], pad_id(model))
        merge_heads(model, merging.factor, inputs, merging.grouping)
    if forms is not None:
        approximate(model, forms.gelu, forms.softmax)


def calibration_inputs(data: Sequence[Example], pad: int, batch: int = 16) -> list[dict[str, Tensor]]:
    """Model inputs from examples, padded in batches."""
    parts = [data[at : at + batch] for at in range(0, len(data), batch)]
    return [dict(zip(("input_ids", "attention_mask"), padded_ids(part, pad), strict=True)) for part in parts]


def _rehearse(model: nn.Module, recipe: Recipe) -> None:
    """Find out in seconds, not after the training, that a technique does not fit the model."""
    trial: nn.Module = copy.deepcopy(model)
    chosen = recipe.techniques
    if chosen.lora is not None:
        trial = add_lora(trial, chosen.lora.rank, chosen.lora.targets)
    _change(trial, recipe, [Example(torch.zeros(2, dtype=torch.int64))])


def open_base(base: Path, task: str, names: Sequence[str]) -> nn.Module:
    """The base with the task's head; new weights come from torch's random numbers.

    Raises:
        MpccError: the folder is not a model of a known kind.
    """
    import transformers

    if not (base / "config.json").is_file():
        raise MpccError("the base has no config.json", where=str(base))
    if not any(base.glob("*.safetensors")):
        raise MpccError("the base has no safetensors file", where=str(base))
    options: dict[str, Any] = {}
    if names:
        options = {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }
    try:
        model: nn.Module = getattr(transformers, _CLASSES[task]).from_pretrained(
            str(base), local_files_only=True, use_safetensors=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if "mismatched_sizes" in str(error):  # transformers lists them in a log only
            raise MpccError(
                "the base's tensors have other shapes than its config.json says",
                where=base.name,
                todo="name the folder of the open checkpoint as it was published",
            ) from None
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise MpccError(f"transformers cannot load the base: {first}", where=base.name) from None
    family_of(model)
    if not _shared(model, base):
        raise MpccError(
            f"the base is another architecture: it holds no tensor of {type(model).__name__}",
            where=base.name,
            todo="name the folder of the open checkpoint",
        )
    return model


def _shared(model: nn.Module, base: Path) -> bool:
    """Whether the base holds weights of the model's layers, of the right shape."""
    from mpcc.compiler.frontend.partition import Partition

    tensors = Partition.from_base(base).base or {}
    shapes = {tuple(name.split(".")[-3:]): t.shape for name, t in tensors.items()}
    return any(
        shapes.get(tuple(name.split(".")[-3:])) == p.shape
        for layer in layers_of(model)
        for name, p in layer.named_parameters()
        if name.count(".") >= 2
    )


def _freeze(model: nn.Module, recipe: Recipe) -> int:
    amount = recipe.techniques.freeze
    if isinstance(amount, float):
        return freeze_layers(model, fraction=amount)
    return freeze_layers(model, layers=amount)


def _base(recipe: Recipe) -> Path:
    if recipe.base is None or not recipe.base.is_dir():
        raise MpccError("the base model's folder does not exist", where=str(recipe.base))
    return recipe.base


def _check_lengths(model: nn.Module, recipe: Recipe) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if isinstance(limit, int) and recipe.data.tokens > limit:
        raise MpccError(f"data.tokens is {recipe.data.tokens}, but the base takes {limit} at most")


def digest(recipe: Recipe, base: Path) -> str:
    """Identifies the recipe together with the bytes of the data and of the base."""
    hashed = hashlib.sha256()
    table = asdict(recipe)
    table["train"].pop("checkpoint_seconds")
    for part in (table["data"], table):
        for key in ("train", "eval", "base"):
            if isinstance(part.get(key), Path):
                part.pop(key)
    hashed.update(json.dumps(table, sort_keys=True).encode())
    for path in (recipe.data.train, recipe.data.eval, *sorted(base.glob("*.safetensors")), base / "config.json"):
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    hashed.update(f"{torch.__version__} {torch.get_num_threads()}".encode())
    return hashed.hexdigest()


def _prepare(folder: Path, wanted: str) -> bool:
    """Make the work folder; True where it holds checkpoints of the same recipe."""
    path = folder / DIGEST_FILE
    if path.is_file() and path.read_text("utf-8") == wanted:
        return any(folder.glob("*.checkpoint"))
    if folder.exists():
        if not path.is_file():
            raise MpccError("the work folder is not one of mpcc finetune", where=str(folder), todo="move it away")
        shutil.rmtree(folder)
    folder.mkdir()
    path.write_text(wanted, "utf-8")
    return False
