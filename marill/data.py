"""Texts and labels from JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from mpcc.compiler.errors import MpccError
from mpcc.marill.prefix import Example
from mpcc.marill.recipe import Data

Row = tuple[str, str]


def read_rows(path: Path, text: str, label: str | None, limit: int | None = None) -> list[Row]:
    """(text, label) of every row; the label is empty where no column is named.

    Raises:
        MpccError: not readable, of another format, a missing column, or no rows.
    """
    kinds = {".jsonl": _json_lines, ".csv": _csv}
    if path.suffix not in kinds:
        raise MpccError("data has to be JSON lines (.jsonl) or CSV (.csv)", where=path.name)
    try:
        rows = [_row(row, text, label, path, i) for i, row in enumerate(kinds[path.suffix](path), start=1)]
    except OSError as error:
        raise MpccError(f"cannot read the data: {error.strerror}", where=path.name) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MpccError(f"the data cannot be read: {error}", where=path.name) from None
    if not rows:
        raise MpccError("the data has no rows", where=path.name)
    return rows[:limit]


def _json_lines(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise MpccError(f"line {number} is not a JSON object", where=path.name)
            yield value


def _csv(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _row(row: Mapping[str, object], text: str, label: str | None, path: Path, number: int) -> Row:
    for column in (text, label):
        if column is not None and (column not in row or row[column] is None):
            have = ", ".join(str(k) for k in row if k is not None)
            raise MpccError(f"row {number} has no column {column!r}", where=path.name, todo=f"it has: {have}")
    return str(row[text]), "" if label is None else str(row[label])


def label_names(rows: Sequence[Row]) -> list[str]:
    """The classes in order: numbers by value, other names by the alphabet."""
    names = {label for _, label in rows}
    return sorted(names, key=lambda n: (0, int(n), n) if n.lstrip("-").isdigit() else (1, 0, n))


def tokenizer_of(base: Path) -> Tokenizer:
    """The tokenizer of a model folder.

    Raises:
        MpccError: there is none.
    """
    path = base / "tokenizer.json"
    if not path.is_file():
        raise MpccError("the base has no tokenizer.json", where=base.name)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise MpccError(f"the tokenizer cannot be read: {error}", where=path.name) from None


def classified(
    rows: Sequence[Row], names: Sequence[str], tokenizer: Tokenizer, tokens: int, where: str
) -> list[Example]:
    """One example for each text, at most `tokens` long.

    Raises:
        MpccError: a label that is none of `names`.
    """
    numbers = {name: i for i, name in enumerate(names)}
    for i, (_, label) in enumerate(rows, start=1):
        if label not in numbers:
            raise MpccError(f"row {i} has a label that no training row has", where=where)
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    encodings = tokenizer.encode_batch([text for text, _ in rows])
    return [Example(torch.tensor(e.ids), numbers[label]) for e, (_, label) in zip(encodings, rows, strict=True)]


def blocks(rows: Sequence[Row], tokenizer: Tokenizer, tokens: int, where: str) -> list[Example]:
    """All texts one after the other, cut into pieces of `tokens` tokens; the rest is left out.

    Raises:
        MpccError: fewer tokens than one piece.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = [i for e in tokenizer.encode_batch([text for text, _ in rows]) for i in e.ids]
    found = [torch.tensor(ids[at : at + tokens]) for at in range(0, len(ids) - tokens + 1, tokens)]
    if not found:
        raise MpccError(f"the texts have {len(ids)} tokens together, less than one piece of {tokens}", where=where)
    return [Example(piece) for piece in found]


def examples(data: Data, task: str, tokenizer: Tokenizer) -> tuple[list[Example], list[Example], list[str]]:
    """(training examples, evaluation examples, names of the classes)."""
    label = data.label if task == "classification" else None
    train, held_out = (read_rows(p, data.text, label, data.limit) for p in (data.train, data.eval))
    if label is None:
        return (
            blocks(train, tokenizer, data.tokens, data.train.name),
            blocks(held_out, tokenizer, data.tokens, data.eval.name),
            [],
        )
    names = label_names(train)
    if len(names) < 2:
        raise MpccError("all training rows have the same label", where=data.train.name)
    return (
        classified(train, names, tokenizer, data.tokens, data.train.name),
        classified(held_out, names, tokenizer, data.tokens, data.eval.name),
        names,
    )
