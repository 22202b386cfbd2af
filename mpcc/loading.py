"""A program from its files, apart from `mpcc.api`: whoever only reads one needs neither the compiler nor PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.compiler.bundle.files import path_pair
from mpcc.compiler.bundle.manifest import COPY_AGAIN
from mpcc.compiler.bundle.read import load as load_bundle
from mpcc.compiler.bundle.session import DECODE, PREFILL, SESSION, session_from
from mpcc.compiler.errors import BundleError
from mpcc.program import Program

if TYPE_CHECKING:
    from mpcc.generation import Generator

COMPILE = "compile one with mpcc compile --prompt-tokens"


def generates(path: str | Path) -> bool:
    """Whether a program is one that generates: the programs of a session, not a single one."""
    return (path_pair(path)[1] / SESSION).is_file()


def load_generator(path: str | Path, roles: Iterable[str] | None = None) -> Generator:
    """Read what `Generator.save` wrote.

    Raises:
        BundleError: as `load`; or the source is not the one that the programs make, or they are not of one session.
    """
    from mpcc.generation import Generator

    source, folder = path_pair(path)
    where = f"{folder.name}/{SESSION}"
    try:
        facts = session_from((folder / SESSION).read_text("utf-8"), where)
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BundleError("no such program that generates", where=str(source), todo=COMPILE) from None
    found = Generator(load(folder / f"{PREFILL}.mpc", roles), load(folder / f"{DECODE}.mpc", roles), facts)
    if found.source != text:
        raise BundleError("the source is not the one that the ring programs make", where=str(source), todo=COPY_AGAIN)
    return found


def load(path: str | Path, roles: Iterable[str] | None = None) -> Program:
    """Read a program that `Program.save` wrote; `roles` limits what is read to, e.g., {"client"}.

    Raises:
        BundleError: a file is missing, changed, of an unknown version, or does not fit the others.
    """
    if generates(path):
        raise BundleError("the program generates text", where=str(path), todo="run it: mpcc generate")
    return Program(load_bundle(path, roles))
