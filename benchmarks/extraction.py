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
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """How well the head was found: errors as shares of the largest weight, and how often a copy says the same."""

    largest_error: float
    mean_error: float
    same_labels: float


def model() -> BertForSequenceClassification:
    """A small classifier with weights of its own in every layer."""
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
    return BertForSequenceClassification(config).eval()


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


def asked(program: Program, inputs: list[Mapping[str, torch.Tensor]]) -> tuple[Floats, Floats]:
    """(what the client shared, what it was answered), a row for each request."""
    shared = [np.concatenate([v.ravel() for v in program.prepared(i).request.values.values()]) for i in inputs]
    answers = [program.run(i, engine="emulator").outputs["logits"].numpy().ravel() for i in inputs]
    return np.array(shared, np.float64), np.array(answers, np.float64)


def fitted(shared: Floats, answers: Floats) -> Floats:
    """[width + 1, labels]: the weights, and the bias in the last row, that explain the answers best."""
    known = np.hstack([shared, np.ones((len(shared), 1))])
    return np.linalg.lstsq(known, answers, rcond=None)[0]


def compared(head: Floats, classifier: BertForSequenceClassification, fresh: Floats) -> Found:
    """The head that was found beside the true one; `fresh` are values that were not asked about."""
    own = classifier.classifier
    true = np.vstack([own.weight.detach().numpy().T, own.bias.detach().numpy()[None]]).astype(np.float64)
    error = np.abs(head - true) / np.abs(true).max()
    known = np.hstack([fresh, np.ones((len(fresh), 1))])
    same = (known @ head).argmax(1) == (known @ true).argmax(1)
    return Found(float(error.max()), float(error.mean()), float(same.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[70, 80, 160])
    numbers = parser.parse_args().requests
    classifier = model()
    program = compiled(classifier)
    shared, answers = asked(program, requests(max(numbers), seed=2))
    fresh = np.array(
        [
            np.concatenate([v.ravel() for v in program.prepared(i).request.values.values()])
            for i in requests(200, seed=3)
        ]
    )
    private = program.bundle.manifest.private_elements
    print(f"a head of {private} private numbers on a public body of width {WIDTH}; answers: logits")
    print("requests  largest error  mean error  same labels")
    for number in numbers:
        found = compared(fitted(shared[:number], answers[:number]), classifier, fresh)
        print(f"{number:8}  {found.largest_error:13.2%}  {found.mean_error:10.2%}  {found.same_labels:11.1%}")


if __name__ == "__main__":
    main()
