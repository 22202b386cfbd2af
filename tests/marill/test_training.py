"""Cached prefixes, training, distillation: the same as training the whole model, and resumable bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import VOCABULARY, tiny
from torch.nn.functional import cross_entropy

from mpcc.compiler.errors import MpccError
from mpcc.marill import DistillOptions, approximate, distill, freeze_layers, merge_heads
from mpcc.marill.checkpoints import Checkpoints
from mpcc.marill.finetune import calibration_inputs
from mpcc.marill.prefix import Example, cache_prefix, padded, padded_ids, trained_part
from mpcc.marill.training import TrainOptions, evaluate, fine_tune, rate, run

NAMES = [
    "BertForSequenceClassification",
    "RobertaForSequenceClassification",
    "DistilBertForSequenceClassification",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
]
EVERY = pytest.mark.parametrize("name", NAMES)


def made(name, count=24, classes=5):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 9, (count,), generator=generator).tolist()
    return [
        Example(torch.randint(3, VOCABULARY, (n,), generator=generator), i % classes if "For" in name else -1)
        for i, n in enumerate(lengths)
    ]


def model_of(name, layers=3):
    options = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None} if "GPT" in name else {}
    return tiny(name, layers=layers, heads=4, **options)


@EVERY
@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_starting_from_the_cache_is_the_whole_model(name, frozen):
    model = model_of(name)
    examples = made(name)[:6]
    batch = padded(cache_prefix(model, frozen, examples), 0)
    ids, mask = padded_ids(examples, 0)
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask).logits
        with trained_part(model, frozen) as forward:
            part = forward(batch)
        again = model(input_ids=ids, attention_mask=mask).logits
    kept = mask.bool() if whole.dim() == 3 else slice(None)
    assert torch.allclose(part[kept], whole[kept], atol=1e-5)
    assert torch.equal(again, whole)  # put together again


def test_a_step_on_the_cache_is_a_step_on_the_whole_model():
    """The gradient of the private layers is that of the whole model."""
    model = model_of(NAMES[0])
    freeze_layers(model, layers=2)
    examples = made(NAMES[0])[:8]
    ids, mask = padded_ids(examples, 0)
    labels = torch.tensor([e.label for e in examples])
    cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels).backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    batch = padded(cache_prefix(model, 2, examples), 0)
    with trained_part(model, 2) as forward:
        cross_entropy(forward(batch), labels).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5), name


@EVERY
def test_training_learns_and_leaves_the_frozen_part_alone(name):
    model = model_of(name)
    freeze_layers(model, layers=2)
    before = {n: p.clone() for n, p in model.named_parameters()}
    examples = cache_prefix(model, 2, made(name))
    loss = evaluate(model, 2, examples).loss
    fine_tune(model, 2, examples, TrainOptions(epochs=12, batch_size=8, learning_rate=5e-3))
    assert evaluate(model, 2, examples).loss < 0.9 * loss
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n]) != p.requires_grad, n


def changed(model, frozen, examples):
    student = copy.deepcopy(model)
    merge_heads(student, 2, calibration_inputs(examples[:8], 0))
    approximate(student, gelu="quad", softmax="2quad")
    return student


def teacher_and_data(name=NAMES[0], frozen=1):
    teacher = model_of(name)
    freeze_layers(teacher, layers=frozen)
    return teacher, cache_prefix(teacher, frozen, made(name, 48))


@pytest.mark.parametrize("name", [NAMES[0], "GPT2LMHeadModel"])
def test_a_distilled_student_is_closer_to_its_teacher(name):
    teacher, data = teacher_and_data(name)
    student = changed(teacher, 1, data)
    batch = padded(data[:16], 0)

    def distance():
        with torch.no_grad(), trained_part(teacher, 1) as one, trained_part(student, 1) as two:
            student.eval()
            a, b = (f(batch).softmax(-1) for f in (one, two))
            kept = batch.mask.bool() if a.dim() == 3 else slice(None)
            return float((a[kept] - b[kept]).abs().mean())

    before, weights = distance(), {n: p.clone() for n, p in teacher.named_parameters()}
    options = TrainOptions(epochs=8, batch_size=8, learning_rate=3e-3)
    distill(teacher, student, data, 1, DistillOptions(options, hidden_epochs=4, label_weight=0.0))
    assert distance() < 0.6 * before
    assert all(torch.equal(p, weights[n]) for n, p in teacher.named_parameters())
    assert [p.requires_grad for p in teacher.parameters()] == [p.requires_grad for p in student.parameters()]


def test_a_teacher_with_another_prefix_is_refused():
    teacher, data = teacher_and_data()
    student = changed(teacher, 1, data)
    with torch.no_grad():
        student.bert.encoder.layer[0].output.dense.bias.add_(1.0)
    with pytest.raises(MpccError, match="equal in the frozen layers"):
        distill(teacher, student, data, 1)


def test_distillation_needs_the_cache():
    teacher, _ = teacher_and_data()
    with pytest.raises(MpccError, match="cached hidden states"):
        distill(teacher, copy.deepcopy(teacher), made(NAMES[0]), 1)


class Killed(Exception):
    pass


def interrupted_after(steps):
    def progress(stage, done, total):
        if done == steps:
            raise Killed

    return progress


@pytest.mark.parametrize("steps", [1, 5])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, steps):
    """Dropout included: the random numbers go on where they were."""
    start, data = teacher_and_data()
    options = TrainOptions(epochs=2, batch_size=8, learning_rate=1e-3)
    assert start.config.hidden_dropout_prob > 0
    whole = copy.deepcopy(start)
    fine_tune(whole, 1, data, options)
    checkpoints = Checkpoints(tmp_path, seconds=0.0)
    first = copy.deepcopy(start)
    with pytest.raises(Killed):
        fine_tune(first, 1, data, options, checkpoints=checkpoints, progress=interrupted_after(steps))
    torch.rand(7)  # another history of random numbers
    second = copy.deepcopy(start)
    fine_tune(second, 1, data, options, checkpoints=checkpoints)
    for (name, a), b in zip(whole.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    model, data = teacher_and_data()
    checkpoints = Checkpoints(tmp_path, seconds=0.0)
    fine_tune(model, 1, data[:8], TrainOptions(epochs=1), checkpoints=checkpoints)
    freeze_layers(model, layers=2)
    with pytest.raises(MpccError, match="another training"):
        fine_tune(model, 2, data[:8], TrainOptions(epochs=1), checkpoints=checkpoints)


def test_a_damaged_checkpoint_is_one_error(tmp_path):
    (tmp_path / "fine-tune.checkpoint").write_bytes(b"PK\x03\x04 nothing")
    model, data = teacher_and_data()
    with pytest.raises(MpccError, match="cannot be read"):
        fine_tune(model, 1, data, TrainOptions(), checkpoints=Checkpoints(tmp_path))


def test_a_loss_that_explodes_is_told():
    model, data = teacher_and_data()
    with pytest.raises(MpccError, match="no longer finite"):
        run(model, data, lambda batch: torch.tensor(float("nan")), TrainOptions(), stage="x")


def test_the_rate_rises_and_falls_to_nothing():
    rates = [rate(step, 20, 0.25) for step in range(20)]
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)
    assert max(rates) == 1.0 and 0 < rates[-1] < 0.1
