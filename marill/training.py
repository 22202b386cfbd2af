"""Training of the private part on cached prefixes, with checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mpcc.compiler.errors import MpccError
from mpcc.marill.checkpoints import Checkpoints
from mpcc.marill.prefix import Batch, Example, pad_id, padded, trained_part

BUCKET_BATCHES, EVALUATION_BATCH = 16, 64
Loss = Callable[[Batch], Tensor]
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class TrainOptions:
    """AdamW; the rate rises linearly over the share `warmup` of the steps, then falls linearly to zero.

    With `bfloat16`, matrix products of the training are computed in it where the processor has instructions for that
    (elsewhere it is many times slower, and left out); weights, and everything in evaluation, stay float32. A gradient
    longer than `max_gradient_norm` is shortened to it, which polynomials in many layers need.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    seed: int = 0
    bfloat16: bool = False
    max_gradient_norm: float | None = None


def fine_tune(
    model: nn.Module,
    frozen: int,
    examples: Sequence[Example],
    options: TrainOptions,
    *,
    stage: str = "fine-tune",
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> None:
    """Train the parameters that require gradients on the task itself, in place."""
    with trained_part(model, frozen) as forward:
        run(
            model,
            examples,
            lambda batch: task_loss(forward(batch), batch),
            options,
            stage=stage,
            checkpoints=checkpoints,
            progress=progress,
        )


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross entropy with the classes [B, classes], or with the next tokens [B, S, vocabulary]."""
    if logits.dim() == 2:
        return cross_entropy(logits, batch.labels)
    targets = batch.ids.masked_fill(batch.mask == 0, -100)[:, 1:]
    return cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def run(
    model: nn.Module,
    examples: Sequence[Example],
    loss: Loss,
    options: TrainOptions,
    *,
    stage: str,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> None:
    """Minimise `loss`; goes on from the stage's checkpoint if there is one.

    Order, dropout and rate of a step depend on the seed and the step alone, so an interrupted training that is started
    again ends with the same weights.

    Raises:
        MpccError: nothing to train, or a loss that is not finite.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise MpccError("there is nothing to train: every parameter is frozen")
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay, foreach=False
    )
    shuffler = random.Random(options.seed)
    batches = [b for _ in range(options.epochs) for b in shuffled(examples, options.batch_size, shuffler)]
    torch.manual_seed(options.seed)
    start = _resumed(checkpoints, stage, parameters, optimizer)
    bfloat16 = options.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    model.train()
    saved, pad = time.monotonic(), pad_id(model)
    for step in range(start, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate(step, len(batches), options.warmup)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            value = loss(padded(batches[step], pad))
        if not bool(torch.isfinite(value)):
            raise MpccError(
                f"the loss is no longer finite at step {step + 1}", where=stage, todo="lower the learning rate"
            )
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if options.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(list(parameters.values()), options.max_gradient_norm)
        optimizer.step()
        progress(stage, step + 1, len(batches))
        due = checkpoints is not None and time.monotonic() - saved >= checkpoints.seconds
        if checkpoints is not None and (due or step + 1 == len(batches)):
            checkpoints.save(stage, _state(step + 1, parameters, optimizer))
            saved = time.monotonic()
    model.eval()


def _state(step: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "step": step,
        "parameters": {name: p.detach() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }


@torch.no_grad()
def _resumed(
    checkpoints: Checkpoints | None, stage: str, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """The step to begin with, after restoring weights, optimizer and random numbers."""
    state = checkpoints.load(stage) if checkpoints is not None else None
    if state is None:
        return 0
    if set(state["parameters"]) != set(parameters):
        raise MpccError("the checkpoint belongs to another training", where=stage, todo="delete its folder")
    for name, value in state["parameters"].items():
        parameters[name].copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def shuffled(examples: Sequence[Example], size: int, shuffler: random.Random) -> list[list[Example]]:
    """One epoch: shuffled, then sorted by length within groups of batches so that little is padded."""
    order = shuffler.sample(range(len(examples)), len(examples))
    batches: list[list[Example]] = []
    for start in range(0, len(order), size * BUCKET_BATCHES):
        group = sorted(order[start : start + size * BUCKET_BATCHES], key=lambda i: len(examples[i].ids))
        batches += [[examples[i] for i in group[at : at + size]] for at in range(0, len(group), size)]
    shuffler.shuffle(batches)
    return batches


def rate(step: int, steps: int, warmup: float) -> float:
    """The factor on the learning rate at a step."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


@dataclass(frozen=True)
class Score:
    """Loss per example (per token for language modelling) and, for classes, the share that is right."""

    loss: float
    accuracy: float | None
    examples: int


@torch.no_grad()
def evaluate(model: nn.Module, frozen: int, examples: Sequence[Example]) -> Score:
    """Score on examples with cached hidden states."""
    model.eval()
    ordered, right, total, weight = sorted(examples, key=lambda e: len(e.ids)), 0, 0.0, 0
    with trained_part(model, frozen) as forward:
        for start in range(0, len(ordered), EVALUATION_BATCH):
            batch = padded(ordered[start : start + EVALUATION_BATCH], pad_id(model))
            logits = forward(batch)
            count = len(batch.ids) if logits.dim() == 2 else int(batch.mask[:, 1:].sum())
            total += float(task_loss(logits, batch)) * count
            weight += count
            if logits.dim() == 2:
                right += int((logits.argmax(-1) == batch.labels).sum())
    classes = bool(ordered) and ordered[0].label >= 0
    return Score(total / max(weight, 1), right / len(ordered) if classes else None, len(ordered))
