"""Folders that readers read from: made once, and copied for each further process, so that several can work."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_OWNER = os.getpid()
_made: set[str] = set()


@functools.cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mpcc-fuzz-"))
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == _OWNER else None)
    return folder


def place(name: str, fill: Callable[[Path], object]) -> Path:
    """The folder of this process with this name; `fill` is given the first one, empty."""
    original = _root() / name
    folder = original if os.getpid() == _OWNER else _root() / str(os.getpid()) / name
    if folder.exists():
        return folder
    if name in _made:
        shutil.copytree(original, folder)
    else:
        folder.mkdir(parents=True)
        fill(folder)
    if folder == original:
        _made.add(name)
    return folder
