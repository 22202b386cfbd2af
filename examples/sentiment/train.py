"""Fine-tune the last layers of MiniLM on film reviews, everything before them frozen.

The frozen prefix is evaluated once for each review; training and evaluation then start from its cached outputs.
"""

import hashlib
import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, BertForSequenceClassification

from examples.sentiment.data import SEQUENCE_LENGTH, Review, base_folder, load_split, load_tokenizer
from examples.sentiment.model import (
    WEIGHTS_FILE,
    Example,
    changed_tensors,
    frozen_names,
    load_classifier,
    prefix,
    suffix,
    trained_parameters,
)

MODEL_FOLDER = "model"
RECORD_FILE = "training.json"
EVALUATION_BATCH = 64
BUCKET_BATCHES = 16

console = Console(stderr=True)

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Everything that the trained weights depend on."""

    epochs: int = 2
    frozen_layers: int = 4
    seed: int = 0
    batch_size: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    train_length: int = 48

    def digest(self) -> str:
        """Identifies the options together with the base checkpoint."""
        base = hashlib.sha256((base_folder() / WEIGHTS_FILE).read_bytes()).hexdigest()
        text = json.dumps({**asdict(self), "base": base}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def encode(
    model: BertForSequenceClassification, frozen_layers: int, reviews: Sequence[Review], length: int, title: str
) -> list[Example]:
    """Evaluate the frozen prefix on every review, in batches of similar length."""
    model.train(False)
    encodings = load_tokenizer(length, pad=False).encode_batch([review.text for review in reviews])
    order = sorted(range(len(reviews)), key=lambda index: len(encodings[index].ids))
    found: dict[int, Example] = {}
    for indices in _track(list(_chunks(order, EVALUATION_BATCH)), title):
        hidden = prefix(model, frozen_layers, [encodings[index].ids for index in indices])
        found |= {index: Example(row, reviews[index].label) for index, row in zip(indices, hidden, strict=True)}
    return [found[index] for index in range(len(reviews))]


def fit(model: BertForSequenceClassification, examples: Sequence[Example], options: Options) -> None:
    """Train the suffix with AdamW; the rate rises linearly, then falls linearly to zero."""
    shuffler = random.Random(options.seed)
    batches = [batch for _ in range(options.epochs) for batch in _batches(examples, options.batch_size, shuffler)]
    optimizer = torch.optim.AdamW(
        trained_parameters(model), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, len(batches), options.warmup))
    model.train()
    for batch in _track(batches, f"training, {options.epochs} epochs"):
        labels = torch.tensor([example.label for example in batch])
        loss = cross_entropy(suffix(model, options.frozen_layers, batch), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.train(False)


@torch.no_grad()
def accuracy(model: BertForSequenceClassification, frozen_layers: int, examples: Sequence[Example]) -> float:
    """The fraction of examples whose label the model finds."""
    model.train(False)
    ordered = sorted(examples, key=lambda example: len(example.hidden))
    right = 0
    for batch in _chunks(ordered, EVALUATION_BATCH):
        labels = torch.tensor([example.label for example in batch])
        right += int((suffix(model, frozen_layers, batch).argmax(-1) == labels).sum())
    return right / len(examples)


def save(model: BertForSequenceClassification, folder: Path) -> None:
    """Save model and tokenizer as a Hugging Face folder, and check that the frozen tensors are still the base's."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_folder()).save_pretrained(folder)
    changed = changed_tensors(frozen_names(model), folder, base_folder())
    if changed:
        raise RuntimeError(f"{len(changed)} frozen tensors differ from the base: {', '.join(changed[:3])}")


def train(options: Options, out: Path) -> dict[str, object]:
    """Train, evaluate and save; returns the record that is written beside the model."""
    split = load_split()
    torch.manual_seed(options.seed)
    model = load_classifier(options.frozen_layers)
    start = time.perf_counter()
    examples = encode(model, options.frozen_layers, split.train, options.train_length, "frozen layers, training set")
    cached = time.perf_counter()
    fit(model, examples, options)
    fitted = time.perf_counter()
    held_out = encode(model, options.frozen_layers, split.held_out, SEQUENCE_LENGTH, "frozen layers, held-out set")
    save(model, out / MODEL_FOLDER)
    return {
        "digest": options.digest(),
        "options": asdict(options),
        "train_reviews": len(split.train),
        "held_out_reviews": len(split.held_out),
        "accuracy": accuracy(model, options.frozen_layers, held_out),
        "frozen_tensors": len(frozen_names(model)),
        "trained_values": sum(parameter.numel() for parameter in trained_parameters(model)),
        "cache_seconds": round(cached - start, 1),
        "train_seconds": round(fitted - cached, 1),
    }


def read_record(out: Path, options: Options) -> dict[str, object] | None:
    """The record of an earlier training with the same options, if its model is still there."""
    path = out / RECORD_FILE
    if not path.exists() or not (out / MODEL_FOLDER / WEIGHTS_FILE).exists():
        return None
    record: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return record if record.get("digest") == options.digest() else None


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training reviews.")] = Options.epochs,
    frozen_layers: Annotated[
        int, typer.Option(min=0, max=5, help="First layers kept as in the base, with the embeddings.")
    ] = Options.frozen_layers,
    seed: Annotated[int, typer.Option(help="Seed of the new classifier, dropout and order.")] = Options.seed,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("build/sentiment"),
) -> None:
    """Train the example's classifier, unless the folder holds one trained with the same options."""
    options = Options(epochs=epochs, frozen_layers=frozen_layers, seed=seed)
    record = read_record(out, options)
    if record is None:
        (out / RECORD_FILE).unlink(missing_ok=True)
        record = train(options, out)
        (out / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    else:
        console.print(f"{out / MODEL_FOLDER} is up to date")
    console.print(f"accuracy {record['accuracy']:.1%} on {record['held_out_reviews']} held-out reviews")


def _batches(examples: Sequence[Example], size: int, shuffler: random.Random) -> list[Sequence[Example]]:
    """One epoch: shuffled, then sorted by length within groups of batches so that little is padded."""
    order = shuffler.sample(range(len(examples)), len(examples))
    batches: list[Sequence[Example]] = []
    for group in _chunks(order, size * BUCKET_BATCHES):
        ordered = sorted(group, key=lambda index: len(examples[index].hidden))
        batches += [[examples[index] for index in chunk] for chunk in _chunks(ordered, size)]
    shuffler.shuffle(batches)
    return batches


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _rate(step: int, steps: int, warmup: float) -> float:
    """The factor on the learning rate at a step."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def _track(items: Sequence[T], title: str) -> Iterable[T]:
    """The items, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, description=title)


if __name__ == "__main__":
    typer.run(main)
