"""Distillation in two stages: the private layers learn the teacher's hidden states, then the model its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from mpcc.compiler.errors import MpccError
from mpcc.marill.checkpoints import Checkpoints
from mpcc.marill.families import body_of, family_of, layers_of
from mpcc.marill.prefix import Batch, Example, Forward, tensor_of, trained_part
from mpcc.marill.training import Progress, TrainOptions, run, silent, task_loss

HIDDEN, LOGITS = "distill-hidden", "distill-logits"


@dataclass(frozen=True)
class DistillOptions:
    """`hidden_epochs` on attention outputs and hidden states, then `train.epochs` on logits.

    In the second stage the labels have the weight `label_weight`, the teacher the rest; `temperature` softens both.
    """

    train: TrainOptions = field(default_factory=TrainOptions)
    hidden_epochs: int = 1
    hidden_learning_rate: float | None = None
    label_weight: float = 0.3
    temperature: float = 2.0


def distill(
    teacher: nn.Module,
    student: nn.Module,
    data: Sequence[Example],
    frozen: int,
    options: DistillOptions | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> None:
    """Train the student's parameters that require gradients, in place.

    Args:
        teacher, student: of one family and size; their embeddings and first `frozen` layers are equal.
        data: examples with the hidden states that enter layer `frozen` (`cache_prefix`).
        frozen: the number of layers that neither is run through nor trained.
        options: epochs, rates, weights.
        checkpoints: where to write them; a stage that has some goes on from there.
        progress: called with stage, step and the number of steps.

    Raises:
        MpccError: the models differ before layer `frozen`, or the data has no hidden states.
    """
    chosen = options or DistillOptions()
    if not data or any(e.hidden is None for e in data):
        raise MpccError("distillation needs examples with cached hidden states")
    check_same_prefix(teacher, student, frozen)
    with _still(teacher), trained_part(teacher, frozen) as by_teacher, trained_part(student, frozen) as by_student:
        if chosen.hidden_epochs:
            with watched(teacher) as aims, watched(student) as found:
                run(
                    student,
                    data,
                    lambda b: _hidden_loss(b, by_teacher, by_student, aims, found),
                    _hidden_stage(chosen),
                    stage=HIDDEN,
                    checkpoints=checkpoints,
                    progress=progress,
                )
        run(
            student,
            data,
            lambda b: _logit_loss(b, by_teacher, by_student, chosen),
            replace(chosen.train, seed=chosen.train.seed + 1),
            stage=LOGITS,
            checkpoints=checkpoints,
            progress=progress,
        )


def _hidden_stage(options: DistillOptions) -> TrainOptions:
    rate = options.hidden_learning_rate or options.train.learning_rate
    return replace(options.train, epochs=options.hidden_epochs, learning_rate=rate)


@contextmanager
def _still(teacher: nn.Module) -> Iterator[None]:
    """The teacher in evaluation and without gradients, which are asked for again at the end."""
    asking = [p for p in teacher.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    teacher.eval()
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def check_same_prefix(teacher: nn.Module, student: nn.Module, frozen: int) -> None:
    """Raise where the frozen parts of two models differ."""
    for one, two in zip(_prefix(teacher, frozen), _prefix(student, frozen), strict=True):
        theirs, ours = one.state_dict(), two.state_dict()
        if theirs.keys() != ours.keys() or any(not torch.equal(theirs[k], ours[k]) for k in ours):
            raise MpccError(
                "teacher and student have to be equal in the frozen layers",
                todo="freeze the same number of layers in both",
            )


def _prefix(model: nn.Module, frozen: int) -> list[nn.Module]:
    body = body_of(model)
    return [*(body.get_submodule(name) for name in family_of(model).embeddings), *layers_of(model)[:frozen]]


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds, after each forward pass, every layer's attention output and hidden state."""
    found: list[Tensor] = []
    name = family_of(model).attention_output

    def keep(module: nn.Module, args: object, output: object) -> None:
        found.append(tensor_of(output))

    layers = layers_of(model)
    handles = [m.register_forward_hook(keep) for layer in layers for m in (layer.get_submodule(name), layer)]
    handles.append(body_of(model).register_forward_pre_hook(lambda module, args: found.clear()))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _hidden_loss(
    batch: Batch, by_teacher: Forward, by_student: Forward, aims: list[Tensor], found: list[Tensor]
) -> Tensor:
    """Mean over layers of the squared distance on real tokens, relative to the teacher's variance."""
    with torch.no_grad():
        by_teacher(batch)
    by_student(batch)
    kept = batch.mask.bool()
    parts = []
    for aim, ours in zip(aims, found, strict=True):
        wanted = aim[kept]
        parts.append((ours[kept] - wanted).square().mean() / wanted.var().clamp_min(1e-6))
    return torch.stack(parts).mean()


def _logit_loss(batch: Batch, by_teacher: Forward, by_student: Forward, options: DistillOptions) -> Tensor:
    with torch.no_grad():
        aim = by_teacher(batch)
    found = by_student(batch)
    t, weight = options.temperature, options.label_weight
    kept = batch.mask.bool() if found.dim() == 3 else slice(None)
    soft = kl_div(
        log_softmax(found[kept] / t, -1), log_softmax(aim[kept] / t, -1), reduction="batchmean", log_target=True
    )
    return (1.0 - weight) * t * t * soft + (weight * task_loss(found, batch) if weight else 0.0)
