"""What a client that only asks learns of a private head: honest requests, and a least-squares fit of their answers.

The body is the open base, so the client computes it in clear and knows what it shares; the private head is one linear
layer. Nothing is forged: every request is an input like any other, through the API, on the emulator, which computes
what the parties would.

    python -m benchmarks.extraction --requests 80
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

import mpcc
from mpcc.program import Program

WIDTH, LENGTH, VOCABULARY = 64, 16, 500
HEAD = "classifier"
ANSWERS: Mapping[str, Mapping[str, object]] = {
    "logits": {},
    "logits of 6 fractional bits": {"output_frac_bits": 6},
    "logits of 2 fractional bits": {"output_frac_bits": 2},
    "the label only": {"output": "label"},
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """How well the head was found: errors as shares of the largest weight, and how often a copy says the same."""

    largest_error: float
    mean_error: float
    same_labels: float


def model() -> BertForSequenceClassification:
    """A small classifier with weights of its own in every layer, which gives both labels about equally often."""
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=2,
        hidden_size=WIDTH,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=2 * LENGTH,
        initializer_range=0.2,
    )
    classifier = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        logits = torch.cat([classifier(**i).logits for i in requests(200, seed=4)])
        classifier.classifier.bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    return classifier


def requests(number: int, seed: int) -> list[Mapping[str, torch.Tensor]]:
    """Inputs as a user would send them."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (number, 1, LENGTH), generator=draw)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


def compiled(classifier: BertForSequenceClassification, **choices: Any) -> Program:
    """The program in which the head alone is private."""
    base = {name: t for name, t in classifier.state_dict().items() if not name.startswith(HEAD)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mpcc.compile(
            classifier,
            sequence_length=LENGTH,
            partition=mpcc.Partition.from_base(base),
            calibration=requests(16, seed=1),
            **choices,
        )


def shared_by(program: Program, inputs: list[Mapping[str, torch.Tensor]]) -> Floats:
    """What the client shares, which it knows: a row for each request, with a 1 for the bias."""
    rows = [np.concatenate([v.ravel() for v in program.prepared(i).request.values.values()]) for i in inputs]
    return np.hstack([np.array(rows, np.float64), np.ones((len(rows), 1))])


def answers_of(program: Program, inputs: list[Mapping[str, torch.Tensor]]) -> Floats:
    """What it is answered: logits, or 1 for the label and -1 for the others."""
    answers = [program.run(i, engine="emulator").outputs for i in inputs]
    if "label" in answers[0]:
        return np.array([2.0 * np.eye(2)[int(a["label"])] - 1 for a in answers])
    return np.array([a["logits"].numpy().ravel() for a in answers], np.float64)


def fitted(shared: Floats, answers: Floats) -> Floats:
    """[width + 1, labels]: the weights, and the bias in the last row, that explain the answers best."""
    return np.linalg.lstsq(shared, answers, rcond=None)[0]


def compared(head: Floats, classifier: BertForSequenceClassification, fresh: Floats) -> Found:
    """The head that was found beside the true one; `fresh` is what requests would share that nobody made."""
    own = classifier.classifier
    true = np.vstack([own.weight.detach().numpy().T, own.bias.detach().numpy()[None]]).astype(np.float64)
    error = np.abs(head - true) / np.abs(true).max()
    same = (fresh @ head).argmax(1) == (fresh @ true).argmax(1)
    return Found(float(error.max()), float(error.mean()), float(same.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[80, 160, 640])
    numbers = parser.parse_args().requests
    classifier = model()
    inputs, unasked = requests(max(numbers), seed=2), requests(500, seed=3)
    first = answers_of(compiled(classifier, **ANSWERS["the label only"]), unasked).argmax(1).mean()
    print(
        f"a private head of {2 * (WIDTH + 1)} numbers; {max(first, 1 - first):.1%} of the labels are the commoner one\n"
    )
    print("| answers | requests | largest error of a weight | mean error | labels of a copy equal |")
    print("| --- | --- | --- | --- | --- |")
    for name, choices in ANSWERS.items():
        program = compiled(classifier, **choices)
        shared, answers, fresh = shared_by(program, inputs), answers_of(program, inputs), shared_by(program, unasked)
        for number in numbers:
            found = compared(fitted(shared[:number], answers[:number]), classifier, fresh)
            errors = "| | |" if "label" in name else f"| {found.largest_error:.2%} | {found.mean_error:.2%} |"
            print(f"| {name} | {number} {errors} {found.same_labels:.1%} |", flush=True)


if __name__ == "__main__":
    main()
