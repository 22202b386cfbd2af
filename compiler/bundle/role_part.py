"""Reading a bundle without torch, until `read.load` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from mpcc.compiler.cost import network_from
from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.ring.text import parse_ring

FORMAT, VERSION = "mpcc-bundle", 1
WEIGHTS = "weights.safetensors"
_TODO = "copy it again, or split the program again"


def load(program: Path, roles: Iterable[str] = ()) -> Any:
    """The parts of a Bundle that a role without torch needs; the fields of the manifest likewise."""
    folder = program.with_suffix(".mpcc")
    table = _manifest(folder)
    digests = table["digests"]
    source = _checked(program, digests.get("source")).decode("utf-8")
    try:
        ring = parse_ring(_checked(folder / "ring.ir", digests.get("ring.ir")).decode("utf-8"))
    except (InternalError, ValueError):
        raise BundleError("the file is corrupt", where=str(folder / "ring.ir"), todo=_TODO) from None
    fields = {
        name: tuple(SimpleNamespace(**entry) for entry in table[name])
        for name in ("outputs", "private_weights", "public_weights")
    }
    ends = {
        f"{word}_elements": max((p.position + p.elements for p in fields[f"{word}_weights"]), default=0)
        for word in ("private", "public")
    }
    manifest = SimpleNamespace(
        **{**table, **fields, **ends, "network": network_from(table["network"])},
    )
    public = _tensors(folder, f"public/{WEIGHTS}", digests)
    provider = _private(folder) if "provider" in roles else None
    return SimpleNamespace(
        manifest=manifest, source=source, ring=ring, public=public, provider=provider, client=None, mpc=None, graph=None
    )


def _private(folder: Path) -> dict[str, Any]:
    own = folder / "provider" / "manifest.json"
    try:
        digests = {f"provider/{k}": v for k, v in json.loads(own.read_text("utf-8"))["digests"].items()}
    except OSError as error:
        raise BundleError(f"the provider's part cannot be read: {error.strerror}", where=str(own), todo=_TODO) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError("the file is corrupt", where=str(own), todo=_TODO) from None
    return _tensors(folder, f"provider/{WEIGHTS}", digests)


def program_path(given: Path) -> Path:
    """prog.mpc for either of prog.mpc and prog.mpcc. BundleError for another name."""
    if given.suffix not in (".mpc", ".mpcc"):
        raise BundleError("a program's name ends in .mpc", where=str(given), todo="call it prog.mpc")
    return given.with_suffix(".mpc")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        table = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BundleError(f"cannot read the manifest: {error.strerror}", where=str(path), todo=_TODO) from None
    except ValueError:
        raise BundleError("the manifest is corrupt", where=str(path), todo=_TODO) from None
    if not isinstance(table, dict) or (table.get("format"), table.get("version")) != (FORMAT, VERSION):
        raise BundleError("the manifest is not one that this mpcc reads", where=str(path))
    return table


def _checked(path: Path, digest: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read a file of the program: {error.strerror}", where=str(path), todo=_TODO) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError("a file is not the program's: its digest is not the manifest's", where=str(path), todo=_TODO)
    return content


def _tensors(folder: Path, name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    path = folder / name
    _checked(path, digests.get(name))
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError):
        raise BundleError("the file is corrupt", where=str(path), todo=_TODO) from None
