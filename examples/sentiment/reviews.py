"""Write held-out reviews and calibration inputs as JSON files that ``mpcc run --input`` and ``mpcc compile`` read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from examples.sentiment.data import LABEL_NAMES, Review, load_split, model_inputs

REVIEWS_FILE = "reviews.json"
LABELS_FILE = "reviews.labels.json"
CALIBRATION_FILE = "calibration.json"


def write_inputs(path: Path, reviews: Sequence[Review]) -> None:
    """Write one input object per review."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(model_inputs([review.text for review in reviews])) + "\n", encoding="utf-8")


def write_labels(path: Path, reviews: Sequence[Review]) -> None:
    """Write text and label of each review, in the order of the inputs."""
    rows = [{"text": item.text, "label": item.label, "name": LABEL_NAMES[item.label]} for item in reviews]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_all(out: Path, count: int, calibration: int) -> None:
    """Write ``count`` held-out reviews with their labels, and ``calibration`` inputs from the training reviews."""
    split = load_split()
    write_inputs(out / REVIEWS_FILE, split.held_out[:count])
    write_labels(out / LABELS_FILE, split.held_out[:count])
    write_inputs(out / CALIBRATION_FILE, split.train[:calibration])


def main(
    count: Annotated[int, typer.Option(min=1, help="Held-out reviews to write.")] = 8,
    calibration: Annotated[int, typer.Option(min=0, help="Training reviews to write for calibration.")] = 64,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("build/sentiment"),
) -> None:
    """Write reviews.json, reviews.labels.json and calibration.json."""
    write_all(out, count, calibration)
    typer.echo(f"{count} reviews and {calibration} calibration inputs in {out}")


if __name__ == "__main__":
    typer.run(main)
