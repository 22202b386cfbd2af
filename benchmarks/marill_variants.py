"""What is compared on Marill's side: standard fine-tuning, each technique alone, all together, and frozen fractions.

Every trained model is a folder below `build/marill`, with its accuracy; what is there is not trained again.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from benchmarks.marill_tasks import Task
from examples.sentiment.data import base_folder
from mpcc.marill import DistillOptions, add_lora, approximate, distill, freeze_layers, merge_heads
from mpcc.marill.finetune import calibration_inputs
from mpcc.marill.prefix import Example, cache_prefix
from mpcc.marill.saving import load, save
from mpcc.marill.training import TrainOptions, evaluate, fine_tune

OUT = Path("build/marill")
RECORD = "score.json"
LAYERS = 6
MERGED, CALIBRATION = 4, 64


@dataclass(frozen=True)
class Variant:
    """One way to fine-tune. `teacher` names the variant that a changed model is distilled from."""

    name: str
    title: str
    frozen: int = 0
    rank: int = 0
    merged: int = 1
    gelu: str | None = None
    softmax: str | None = None
    teacher: str = ""

    @property
    def changed(self) -> bool:
        """Whether it computes another function than the base's architecture."""
        return self.merged > 1 or self.gelu is not None or self.softmax is not None


STANDARD = Variant("standard", "standard fine-tuning")
FROZEN_LORA = Variant("frozen-lora", "4 of 6 layers frozen, LoRA", frozen=4, rank=8)
VARIANTS = {
    v.name: v
    for v in (
        STANDARD,
        Variant("freeze", "4 of 6 layers frozen", frozen=4),
        Variant("lora", "LoRA, rank 8", rank=8),
        Variant("merge", "heads merged by 4", merged=MERGED, teacher="standard"),
        Variant("approximate", "GELU -> Quad, softmax -> 2Quad", gelu="quad", softmax="2quad", teacher="standard"),
        FROZEN_LORA,
        Variant("all", "all together, 4 of 6 frozen", 4, 8, MERGED, "quad", "2quad", "frozen-lora"),
        Variant("frozen-5-lora", "5 of 6 layers frozen, LoRA", frozen=5, rank=8),
        Variant("all-5", "all together, 5 of 6 frozen", 5, 8, MERGED, "quad", "2quad", "frozen-5-lora"),
        *(Variant(f"freeze-{k}", f"{k} of 6 layers frozen", frozen=k) for k in (1, 2, 3, 5, 6)),
    )
}


@dataclass(frozen=True)
class Schedule:
    """Epochs and rates, the same for both tasks; chosen on news articles that are neither trained nor tested on."""

    epochs: int = 2
    frozen_epochs: int = 3
    lora_epochs: int = 5
    rate: float = 2e-4
    lora_rate: float = 3e-3
    hidden_epochs: int = 1
    hidden_rate: float = 5e-4
    distill_epochs: int = 2
    distill_rate: float = 1e-4
    deep_hidden_epochs: int = 4  # polynomials in all layers: slower, in float32 and with short gradients
    deep_distill_epochs: int = 4
    lora_hidden_rate: float = 2e-3
    lora_distill_epochs: int = 3
    lora_distill_rate: float = 2e-3


def folder_of(task: Task, variant: Variant, seed: int, out: Path = OUT) -> Path:
    """Where a trained model is."""
    return out / task.name / variant.name / f"seed-{seed}"


def record_of(task: Task, variant: Variant, seed: int, out: Path = OUT) -> dict[str, float] | None:
    """Accuracy and times of a trained model, or None."""
    path = folder_of(task, variant, seed, out) / RECORD
    found: dict[str, float] | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return found


class Trainer:
    """Trains variants of one task; texts and prefixes of the base are encoded once."""

    def __init__(self, task: Task, rows: int, schedule: Schedule | None = None, out: Path = OUT) -> None:
        self.task, self.out, self.schedule = task, out, schedule or Schedule()
        self.texts = task.encode(task.train[:rows]), task.encode(task.test)
        self._cached: dict[int, tuple[list[Example], list[Example]]] = {}

    def data(self, frozen: int) -> tuple[list[Example], list[Example]]:
        """(training, test) examples with the hidden states behind `frozen` layers; one depth is kept."""
        if frozen not in self._cached:
            model = self.task.model(0)
            found = [cache_prefix(model, frozen, part) for part in self.texts]
            self._cached = {frozen: (found[0], found[1])}
        return self._cached[frozen]

    def train(self, variant: Variant, seed: int) -> dict[str, float]:
        """Train a variant unless it is there; its record."""
        known = record_of(self.task, variant, seed, self.out)
        if known is not None:
            return known
        if variant.teacher and record_of(self.task, VARIANTS[variant.teacher], seed, self.out) is None:
            self.train(VARIANTS[variant.teacher], seed)
        begin = time.process_time()
        model = self._distilled(variant, seed) if variant.changed else self._tuned(variant, seed)
        score = evaluate(model, variant.frozen, self.data(variant.frozen)[1])
        assert score.accuracy is not None
        record = {
            "accuracy": score.accuracy,
            "loss": score.loss,
            "rows": len(self.texts[0]),
            "tests": score.examples,
            "cpu_seconds": round(time.process_time() - begin, 1),
        }
        target = folder_of(self.task, variant, seed, self.out)
        beside = target.with_name(target.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        save(model, beside, base_folder())
        (beside / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        beside.replace(target)
        return record

    def _options(self, variant: Variant, seed: int) -> TrainOptions:
        s = self.schedule
        epochs = s.lora_epochs if variant.rank and variant.frozen else s.frozen_epochs if variant.frozen else s.epochs
        rate = s.lora_rate if variant.rank else s.rate
        return TrainOptions(epochs, learning_rate=rate, seed=seed, bfloat16=True)

    def _fresh(self, variant: Variant, seed: int) -> nn.Module:
        model: nn.Module = self.task.model(seed)
        freeze_layers(model, layers=variant.frozen)
        return add_lora(model, variant.rank) if variant.rank else model

    def _tuned(self, variant: Variant, seed: int) -> nn.Module:
        model = self._fresh(variant, seed)
        fine_tune(model, variant.frozen, self.data(variant.frozen)[0], self._options(variant, seed))
        return model

    def _distilled(self, variant: Variant, seed: int) -> nn.Module:
        teacher = self.open(VARIANTS[variant.teacher], seed)
        student = copy.deepcopy(teacher)
        train, _ = self.data(variant.frozen)
        merge_heads(student, variant.merged, calibration_inputs(train[:CALIBRATION], 0))
        approximate(student, variant.gelu, variant.softmax)
        s, low_rank, deep = self.schedule, variant.rank > 0, variant.name == "approximate"
        options = TrainOptions(
            s.lora_distill_epochs if low_rank else s.deep_distill_epochs if deep else s.distill_epochs,
            learning_rate=s.lora_distill_rate if low_rank else s.distill_rate,
            seed=seed,
            bfloat16=not deep,
            max_gradient_norm=1.0 if deep else None,
        )
        hidden = DistillOptions(
            options,
            s.deep_hidden_epochs if deep else s.hidden_epochs,
            s.lora_hidden_rate if low_rank else s.hidden_rate,
        )
        distill(teacher, student, train, variant.frozen, hidden)
        return student

    def open(self, variant: Variant, seed: int) -> nn.Module:
        """A trained model as it was when it was trained: the same parameters learn."""
        target = self._fresh(variant, seed)
        saved = load(folder_of(self.task, variant, seed, self.out), base_folder())
        target.load_state_dict(saved.state_dict())
        return target
