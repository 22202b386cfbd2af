"""A program from its files, apart from `mpcc.api`: whoever only reads one needs neither the compiler nor PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mpcc.compiler.bundle.read import load as load_bundle
from mpcc.program import Program


def load(path: str | Path, roles: Iterable[str] | None = None) -> Program:
    """Read a program that `Program.save` wrote; `roles` limits what is read to, e.g., {"client"}.

    Raises:
        BundleError: a file is missing, changed, of an unknown version, or does not fit the others.
    """
    return Program(load_bundle(path, roles))
