"""TOML files, which anybody may have written, as tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mpcc.compiler.errors import MpccError

LARGEST_TOML = 2**20  # bytes


def read_toml(path: Path, what: str, error: type[MpccError] = MpccError) -> dict[str, Any]:
    """The table in a file; `what` names the file in messages ("the recipe").

    Raises:
        MpccError: of the class `error`; it cannot be read, is larger than LARGEST_TOML, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TOML + 1)
        if len(content) > LARGEST_TOML:
            raise error(f"{what} is larger than {LARGEST_TOML} bytes", where=str(path))
        return tomllib.loads(content.decode("utf-8"))
    except OSError as problem:
        raise error(f"cannot read {what}: {problem.strerror}", where=str(path)) from None
    except (ValueError, RecursionError) as problem:  # besides TOMLDecodeError: numbers that are too long
        raise error(f"{what} is not TOML{_reason(problem)}", where=str(path)) from None


def _reason(problem: Exception) -> str:
    """Where in the file; what is wrong may hold characters of the file."""
    if not isinstance(problem, tomllib.TOMLDecodeError):
        return ""
    text = str(problem)
    return f": {text}" if text.isascii() and text.isprintable() else ""
