"""The files that the commands read: inputs, one object or many, and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcc.compiler.errors import InputError

if TYPE_CHECKING:
    from mpcc.program import Program


def read_inputs(path: Path) -> list[Mapping[str, object]]:
    """The objects of an input or calibration file, or of standard input (-): one, a list of them, or one a line.

    Raises:
        InputError: not readable, not JSON, or neither an object nor a list of objects.
    """
    where = "standard input" if str(path) == "-" else str(path)
    try:
        value = _parsed(sys.stdin.read() if str(path) == "-" else path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the inputs: {error.strerror}", where=where) from None
    except (ValueError, RecursionError):
        raise InputError("the file is not JSON", where=where) from None
    objects = value if isinstance(value, list) else [value]
    if not objects or not all(isinstance(o, dict) for o in objects):
        raise InputError(
            "the file holds neither an object nor a list of objects",
            where=where,
            todo='write {"input_ids": [[...]], ...} or {"text": "..."}',
        )
    return objects


def _parsed(text: str) -> Any:
    """A JSON document, or a list of one document for each line."""
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def load(path: Path) -> Program:
    from mpcc.loading import load

    return load(path)


def spoken_lines() -> Iterator[Mapping[str, object]]:
    """The JSON objects on standard input, one a line."""
    for line in sys.stdin:
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise InputError("a line on standard input is no JSON object")
            yield value
