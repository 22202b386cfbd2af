"""Giving each role its own part of a program: three folders, each a program that only that role can use."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from mpcc.compiler.bundle.contents import GRAPH, HELPER_FILES, MANIFEST, MPC, RING, SOURCE_KEY
from mpcc.compiler.bundle.files import path_pair
from mpcc.compiler.bundle.manifest import from_text, reduced, to_text
from mpcc.compiler.errors import BundleError

SHARED = (MANIFEST, GRAPH, RING, MPC, "public")
OWN = {"client": ("client",), "provider": ("provider",)}
HELPERS = (RING, MPC, "public")


def split_program(program: Path, out: Path, roles: Sequence[str]) -> list[Path]:
    """Write out/<role>/prog.mpc with its bundle for each role; the new programs' paths.

    Client and provider get what everybody may know: the source, the manifest, the IRs, and the public weights that MPC
    uses. What the client computes in clear, with its public weights and tokenizer, goes to the client; the private
    weights to the provider (folder 0700, files 0600). Any other role gets what it takes part in: the source, the IRs of
    what is inside MPC, the public weights there, and a manifest that is `reduced` to that.

    Raises:
        BundleError: a part is missing, or a role's folder holds something already.
    """
    source, bundle = path_pair(program)
    for role in roles:
        if (out / role).exists() and any((out / role).iterdir()):
            raise BundleError("the folder is not empty", where=str(out / role), todo="choose another one with -o")
    return [_part(source, bundle, out / role, role) for role in roles]


def _part(source: Path, bundle: Path, folder: Path, role: str) -> Path:
    """One role's folder: complete, or not there."""
    staged = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        staged.mkdir(mode=0o700, parents=True)
        shutil.copyfile(source, staged / source.name)
        target = staged / bundle.name
        target.mkdir()
        for name in (*SHARED, *OWN[role]) if role in OWN else HELPERS:
            _copy(bundle / name, target / name, secret=name == "provider")
        if role not in OWN:
            (target / MANIFEST).write_text(_reduced(bundle / MANIFEST), "utf-8")
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    except OSError as error:
        raise BundleError(f"cannot copy the {role}'s part: {error.strerror or error}", where=str(folder)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder / source.name


def _reduced(path: Path) -> str:
    """A manifest as the helper gets it, with the digests of its files alone."""
    manifest, digests = from_text(path.read_text("utf-8"), str(path))
    return to_text(reduced(manifest), {name: digests[name] for name in sorted(HELPER_FILES | {SOURCE_KEY})})


def _copy(source: Path, target: Path, *, secret: bool) -> None:
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(mode=0o700 if secret else 0o755)
    for path in source.iterdir():
        copied = target / path.name
        copied.touch(mode=0o600 if secret else 0o644)
        shutil.copyfile(path, copied)
