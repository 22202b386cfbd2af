"""Putting a program and its bundle in place: completely, or not at all.

Everything is written and synced in a folder of its own beside the target, then renamed. The old bundle is set aside
first and the source replaced last, in one step: until then a failure puts the old bundle back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mpcc.compiler.errors import BundleError

SOURCE_SUFFIX, FOLDER_SUFFIX = ".mpc", ".mpcc"
_SPARE = 1 << 16  # bytes for folders, manifests and the like


@dataclass(frozen=True)
class Staged:
    """A file to write, named relative to the bundle: text or arrays; `secret` ones only their owner may read."""

    name: str
    text: str | None = None
    arrays: Mapping[str, NDArray[Any]] | None = None
    secret: bool = False

    @property
    def bytes(self) -> int:
        """About what it takes on disk."""
        arrays = (self.arrays or {}).items()
        return len((self.text or "").encode()) + sum(a.nbytes + 128 + len(n) for n, a in arrays)


def path_pair(path: str | Path) -> tuple[Path, Path]:
    """(source, bundle) of a program named by either of them.

    Raises:
        BundleError: another suffix.
    """
    given = Path(path)
    if given.suffix not in (SOURCE_SUFFIX, FOLDER_SUFFIX) or given.stem in ("", ".", ".."):
        raise BundleError(f"a program's name ends in {SOURCE_SUFFIX}", where=str(given), todo="call it prog.mpc")
    return given.with_suffix(SOURCE_SUFFIX), given.with_suffix(FOLDER_SUFFIX)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_target(path: str | Path) -> None:
    """Can a program be written there? Asked before hours of work; `install` finds out for certain.

    Raises:
        BundleError: the folder is missing or not writable, or something else is in the way.
    """
    source, folder = path_pair(path)
    parent = source.parent
    if not parent.is_dir():
        raise BundleError("cannot write the program: there is no such folder", where=str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BundleError("cannot write the program: the folder is not writable", where=str(parent))
    if source.is_dir():
        raise BundleError("cannot write the program: a folder has its name", where=str(source))
    if folder.exists() and not any((folder / name).is_file() for name in ("manifest.json", "session.json")):
        raise BundleError("cannot write the program: what has the bundle's name is no bundle", where=str(folder))


def install(path: str | Path, source: str, files: Sequence[Staged], closing: Callable[[Path], list[Staged]]) -> None:
    """Write the source and the bundle; `closing` gives the last files from the folder that holds the others.

    Raises:
        BundleError: no permission, no space (with the bytes needed), or any other refusal of the file system.
    """
    check_target(path)
    target, folder = path_pair(path)
    needed = sum(f.bytes for f in files) + len(source.encode()) + _SPARE
    staging = target.parent / f".{target.stem}.{secrets.token_hex(4)}.tmp"
    with _explained(target, needed):
        _check_space(target.parent, needed)
        kept = False
        try:
            staging.mkdir(mode=0o700)
            fresh = staging / "bundle"
            fresh.mkdir()
            for part in files:
                write_part(fresh, part)
            for part in closing(fresh):
                write_part(fresh, part)
            write_part(staging, Staged("source", text=source))
            _sync_folders(fresh)
            kept = _commit(staging, target, folder)
            _sync(target.parent)
        finally:
            if not kept:
                shutil.rmtree(staging, ignore_errors=True)


def _commit(staging: Path, target: Path, folder: Path) -> bool:
    """Swap old for new. True if the old bundle is stuck in `staging`, which then must not be removed."""
    old, fresh = staging / "old", staging / "bundle"
    replaced = folder.exists()
    if replaced:
        folder.rename(old)
    try:
        fresh.rename(folder)
        (staging / "source").replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            if not fresh.exists():
                folder.rename(fresh)
        if replaced:
            old.rename(folder)
        raise
    return False


def write_part(root: Path, part: Staged) -> None:
    """Write and sync one file. Folders of secret files are closed to others before anything is in them."""
    path = root / part.name
    path.parent.parent.mkdir(exist_ok=True)
    path.parent.mkdir(mode=0o700 if part.secret else 0o777, exist_ok=True)
    mode = 0o600 if part.secret else 0o666
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        if part.text is not None:
            file.write(part.text.encode())
    if part.arrays is not None:
        # `asarray`, since `ascontiguousarray` makes vectors of scalars
        save_file({name: np.asarray(array, order="C") for name, array in part.arrays.items()}, path)
        if part.secret:
            path.chmod(0o600)
        else:
            path.chmod(0o666 & ~_umask())
    _sync(path)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folders(root: Path) -> None:
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        _sync(folder)


def _check_space(parent: Path, needed: int) -> None:
    if shutil.disk_usage(parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _explained(target: Path, needed: int) -> Iterator[None]:
    """Errors of the file system as one clear error."""
    try:
        yield
    except SafetensorError as error:
        # safetensors reports the operating system's error only as text
        full = "os error 28" in str(error).lower() or "no space" in str(error).lower()
        raise (
            _no_space(target, needed) if full else BundleError("cannot write the weights", where=str(target))
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(target, needed) from None
        raise BundleError(f"cannot write the program: {error.strerror or 'unknown error'}", where=str(target)) from None


def _no_space(target: Path, needed: int) -> BundleError:
    return BundleError(
        f"no space left to write the program: it needs {needed / 1e6:.1f} MB ({needed} bytes)",
        where=str(target),
        todo="free some, or choose another place",
    )
