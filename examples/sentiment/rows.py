"""Write the reviews as JSON lines, as ``mpcc finetune`` reads them: train.jsonl and eval.jsonl."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from examples.sentiment.data import LABEL_NAMES, Review, load_split


def write_rows(path: Path, reviews: Sequence[Review]) -> None:
    """One object with text and label for each review."""
    rows = [{"text": item.text, "label": LABEL_NAMES[item.label]} for item in reviews]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("build/sentiment")) -> None:
    """Write both files."""
    split = load_split()
    write_rows(out / "train.jsonl", split.train)
    write_rows(out / "eval.jsonl", split.held_out)
    typer.echo(f"{len(split.train)} and {len(split.held_out)} reviews in {out}")


if __name__ == "__main__":
    typer.run(main)
