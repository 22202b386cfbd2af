"""What a role other than the client reads of a program: the shared files and its own folder, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mpcc.backends.mp_spdz.dialects import check_source
from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.fixed import encode
from mpcc.compiler.ring.text import parse_ring
from mpcc.runtime.engine import Deployment, Int64

FORMAT, VERSION = "mpcc-bundle", 1
WEIGHTS = "weights.safetensors"
_TODO = "copy it again, or split the program again"
Table = dict[str, Any]


def read_deployment(program: Path) -> Deployment:
    """What every role knows of the program at `program` (prog.mpc, with its shared files in prog.mpcc beside it).

    Raises:
        BundleError: a file is missing, changed or corrupt.
    """
    folder = _folder(program)
    manifest = _manifest(folder)
    digests = manifest["digests"]
    source = _checked(program, digests.get("source"))
    ring = parse(_checked(folder / "ring.ir", digests.get("ring.ir")).decode("utf-8"), folder)
    public = _stream(manifest["public_weights"], _tensors(folder, f"public/{WEIGHTS}", digests))
    outputs = tuple(
        (str(o["name"]), int(np.prod(o["shape"], dtype=np.int64))) for o in manifest["outputs"] if not o["clear"]
    )
    placed = manifest["private_weights"]
    check_source(source.decode("utf-8"), str(manifest["protocol"]))
    return Deployment(
        source.decode("utf-8"), str(manifest["protocol"]), layout_digest(placed), public, _end(placed), ring, outputs
    )


def read_weights(program: Path) -> Int64:
    """The provider's private weights as ring elements, in the program's order. BundleError as above."""
    return _stream(_manifest(_folder(program))["private_weights"], private_tensors(program))


def private_tensors(program: Path) -> dict[str, Any]:
    """The provider's private weights by name. BundleError as above."""
    folder = _folder(program)
    own = folder / "provider" / "manifest.json"
    try:
        digests = {f"provider/{k}": v for k, v in json.loads(own.read_text("utf-8"))["digests"].items()}
    except OSError as error:
        raise BundleError(f"the provider's part cannot be read: {error.strerror}", where=str(own), todo=_TODO) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError("the file is corrupt", where=str(own), todo=_TODO) from None
    return _tensors(folder, f"provider/{WEIGHTS}", digests)


def public_tensors(program: Path) -> dict[str, Any]:
    """The public weights inside MPC by name. BundleError as above."""
    folder = _folder(program)
    return _tensors(folder, f"public/{WEIGHTS}", _manifest(folder)["digests"])


def layout_digest(placed: Iterable[Mapping[str, Any]]) -> str:
    """A digest of which weight stands where at which scale."""
    rows = [[str(p["tensor"]), int(p["frac_bits"]), int(p["position"]), int(p["elements"])] for p in placed]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def parse(text: str, folder: Path) -> int:
    """Ring elements of one request, from the text of the ring IR."""
    try:
        return sum(node.type.elements for node in parse_ring(text) if node.op == "input")
    except (InternalError, ValueError):
        raise BundleError("the file is corrupt", where=str(folder / "ring.ir"), todo=_TODO) from None


def program_path(given: Path) -> Path:
    """prog.mpc for either of prog.mpc and prog.mpcc. BundleError for another name."""
    if given.suffix not in (".mpc", ".mpcc"):
        raise BundleError("a program's name ends in .mpc", where=str(given), todo="call it prog.mpc")
    return given.with_suffix(".mpc")


def _folder(program: Path) -> Path:
    return program.with_suffix(".mpcc")


def _manifest(folder: Path) -> Table:
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


def _stream(placed: Iterable[Mapping[str, Any]], tensors: Mapping[str, Any]) -> Int64:
    entries = list(placed)
    stream = np.zeros(_end(entries), np.int64)
    for p in entries:
        if p["tensor"] not in tensors or tensors[p["tensor"]].size != p["elements"]:
            raise BundleError("the weights are not those of this program", todo=_TODO)
        begin = int(p["position"])
        stream[begin : begin + int(p["elements"])] = encode(tensors[p["tensor"]], int(p["frac_bits"])).reshape(-1)
    return stream


def _end(placed: Iterable[Mapping[str, Any]]) -> int:
    return max((int(p["position"]) + int(p["elements"]) for p in placed), default=0)
