"""Giving each role its own part of a program: three folders, each a program that only that role can use."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpcc.compiler.bundle.files import path_pair
from mpcc.compiler.bundle.read import load
from mpcc.compiler.errors import BundleError
from mpcc.runtime.deployment import deployment_of
from mpcc.runtime.engine import Options
from mpcc.runtime.engines import ENGINES

SHARED = ("manifest.json", "ring.ir", "public")
OWN = {"client": ("client",), "provider": ("provider",)}


def split_program(program: Path, out: Path, roles: Sequence[str]) -> list[Path]:
    """Write out/<role>/prog.mpc with its bundle for each role; the new programs' paths.

    The source, the manifest, ring.ir, the public weights that MPC uses and the engines' own files go to all. The
    client's graph, its public weights and tokenizer, and the other graphs, which nobody else needs, go to the client;
    the private weights to the provider (folder 0700, files 0600).

    Raises:
        BundleError: a part is missing, or a role's folder holds something already.
    """
    source, bundle = path_pair(program)
    for role in roles:
        if (out / role).exists() and any((out / role).iterdir()):
            raise BundleError("the folder is not empty", where=str(out / role), todo="choose another one with -o")
    extra = _engines_files(source)
    return [_part(source, bundle, out / role, role, extra) for role in roles]


def _engines_files(source: Path) -> dict[str, str]:
    """What the engines need beside the bundle, by name."""
    shared = deployment_of(load(source, ()))
    engines = [engine.configured(Options()) for engine in ENGINES]
    return {name: content for engine in engines for name, content in engine.part_files(shared).items()}


def _part(source: Path, bundle: Path, folder: Path, role: str, extra: Mapping[str, str]) -> Path:
    """One role's folder: complete, or not there; `extra` are more files of its bundle."""
    staged = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        staged.mkdir(mode=0o700, parents=True)
        shutil.copyfile(source, staged / source.name)
        target = staged / bundle.name
        target.mkdir()
        texts = [p.name for p in bundle.iterdir() if p.is_file() and p.name not in SHARED] if role == "client" else []
        for name in (*SHARED, *OWN.get(role, ()), *texts):
            _copy(bundle / name, target / name, secret=name == "provider")
        for name, content in extra.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_text(content, "utf-8")
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    except OSError as error:
        raise BundleError(f"cannot copy the {role}'s part: {error.strerror or error}", where=str(folder)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder / source.name


def _copy(source: Path, target: Path, *, secret: bool) -> None:
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(mode=0o700 if secret else 0o755)
    for path in source.iterdir():
        copied = target / path.name
        copied.touch(mode=0o600 if secret else 0o644)
        shutil.copyfile(path, copied)
