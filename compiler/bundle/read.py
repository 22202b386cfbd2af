"""A program from its files: every file is compared with its digest, and all of them with one another.

Whatever the files hold, the result is a program whose parts fit together, or one BundleError that names the file. Only
the graphs are not yet known to mean something: their operations are checked before they are run (`mpcc.clear`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load_file

from mpcc.compiler.bundle.agreement import check_bundle, check_client, check_weights
from mpcc.compiler.bundle.contents import (
    CLIENT_FILES,
    GRAPH,
    HELPER_FILES,
    MANIFEST,
    MPC,
    OPTIONAL_FILES,
    RING,
    ROLES,
    SHARED_FILES,
    SOURCE_KEY,
    TOKENIZER,
    WEIGHTS,
    Arrays,
    Bundle,
    ClientPart,
)
from mpcc.compiler.bundle.files import digest_of, path_pair
from mpcc.compiler.bundle.limits import LARGEST_IR, LARGEST_TEXT
from mpcc.compiler.bundle.manifest import COPY_AGAIN, Manifest, from_text, own_digests
from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.text import parse_graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.text import parse_ring
from mpcc.compiler.ring.verify import verify
from mpcc.compiler.types import printable

DTYPES = ("float32", "float64", "int64", "int32", "bool")
_DIGITS = frozenset("0123456789abcdef")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LONGEST = 300  # characters of what is wrong, which may quote the file
T = TypeVar("T")


def load(path: str | Path, roles: Iterable[str] | None = None) -> Bundle:
    """Read a program, named by prog.mpc or prog.mpcc, as much as `roles` need; by default everything that is there.

    Raises:
        BundleError: a file is missing, changed, of an unknown version, or does not fit the others; the message names
            it and holds no value of a weight.
    """
    source_path, folder = path_pair(path)
    if not source_path.exists() and not folder.exists():
        raise BundleError("no such program", where=str(source_path))
    manifest, digests = from_text(_text(folder, MANIFEST), f"{folder.name}/{MANIFEST}")
    _check_digests(digests, f"{folder.name}/{MANIFEST}", reduced=manifest.reduced)
    wanted = set(roles) if roles is not None else {r for r in ROLES if (folder / r).is_dir()}
    if unknown := sorted(wanted - set(ROLES)):
        raise BundleError(f"there is no role {unknown[0]!r}", todo=f"roles: {', '.join(ROLES)}")
    if manifest.reduced and wanted:
        raise BundleError(f"this is the helper's part of the program, not the {min(wanted)}'s", where=str(folder))
    reader = _Reader(folder, digests)
    mpc: Graph = reader.parsed(MPC, parse_graph)
    source = _source(source_path, digests)
    bundle = Bundle(
        manifest,
        source,
        mpc if manifest.reduced else reader.parsed(GRAPH, parse_graph),
        reader.parsed(RING, _verified_ring),
        reader.arrays(f"public/{WEIGHTS}"),
        _client(reader, manifest) if "client" in wanted else None,
        _provider(reader, manifest) if "provider" in wanted else None,
        mpc,
    )
    check_bundle(bundle, folder.name)
    return bundle


def _verified_ring(text: str) -> RingGraph:
    ring = parse_ring(text)
    verify(ring, final=True)
    return ring


def _client(reader: _Reader, manifest: Manifest) -> ClientPart:
    name = f"client/{TOKENIZER}"
    tokenizer = reader.text(name) if name in reader.digests else None
    graph: Graph = reader.parsed(f"client/{GRAPH}", parse_graph)
    part = ClientPart(graph, reader.arrays(f"client/{WEIGHTS}"), tokenizer)
    check_client(part, manifest, reader.folder.name)
    return part


def _provider(reader: _Reader, manifest: Manifest) -> Arrays:
    where = f"{reader.folder.name}/provider/{MANIFEST}"
    own = own_digests(_text(reader.folder, f"provider/{MANIFEST}"), where)
    tensors = _Reader(reader.folder, {f"provider/{k}": v for k, v in own.items()}).arrays(f"provider/{WEIGHTS}")
    check_weights(manifest.private_weights, tensors, f"{reader.folder.name}/provider/{WEIGHTS}")
    return tensors


def _check_digests(digests: Mapping[str, str], where: str, *, reduced: bool) -> None:
    """The files that have a digest are those that a bundle has: no other name is ever used as a path."""
    needed = (HELPER_FILES if reduced else SHARED_FILES | CLIENT_FILES) | {SOURCE_KEY}
    if missing := sorted(needed - set(digests)):
        raise BundleError(f"the manifest is corrupt: no digest of {missing[0]}", where=where, todo=COPY_AGAIN)
    if unknown := sorted(set(digests) - needed - (frozenset() if reduced else OPTIONAL_FILES)):
        raise BundleError(
            f"the manifest is corrupt: a bundle has no file {unknown[0][:60]!r}", where=where, todo=COPY_AGAIN
        )
    for name, digest in digests.items():
        if len(digest) != hashlib.sha256().digest_size * 2 or not set(digest) <= _DIGITS:
            raise BundleError(
                f"the manifest is corrupt: the digest of {name} is no SHA-256", where=where, todo=COPY_AGAIN
            )


def _source(path: Path, digests: Mapping[str, str]) -> str:
    try:
        content = _content(path, LARGEST_TEXT)
    except OSError as error:
        raise BundleError(f"cannot read the program: {error.strerror}", where=str(path)) from None
    if hashlib.sha256(content).hexdigest() != digests[SOURCE_KEY]:
        raise BundleError(
            "the source was changed after it was compiled: its digest is not the manifest's",
            where=str(path),
            todo="compile again",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupt(str(path), "it is not text") from None


def _text(folder: Path, name: str) -> str:
    try:
        return _content(folder / name, LARGEST_IR if name.endswith(".ir") else LARGEST_TEXT).decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupt(f"{folder.name}/{name}", "it is not text") from None
    except OSError as error:
        raise _unreadable(folder, name, error) from None


def _regular(path: Path) -> Path:
    """A file whose reading ends: not a pipe that waits for somebody to write."""
    if path.exists() and not path.is_file():
        raise OSError(0, "it is not a file")
    return path


def _content(path: Path, most: int) -> bytes:
    with _regular(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(0, f"it is larger than {most} bytes")
    return content


def _shows(text: str) -> bool:
    """Whether no name in the text of an IR does something on a terminal."""
    escaped = (json.loads(m[0]) for m in _QUOTED.finditer(text) if "\\" in m[0])
    try:
        return printable(text.replace("\n", "")) and all(map(printable, escaped))
    except ValueError:
        return False


def _unreadable(folder: Path, name: str, error: OSError) -> BundleError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return BundleError(f"the bundle has no {name}", where=str(folder), todo=COPY_AGAIN)
    return BundleError(f"cannot read {name}: {error.strerror}", where=str(folder))


def _corrupt(where: str, why: str) -> BundleError:
    return BundleError(f"the file is corrupt: {why[:_LONGEST]}", where=where, todo=COPY_AGAIN)


@dataclass(frozen=True)
class _Reader:
    """Reads files of a bundle after checking their digests."""

    folder: Path
    digests: Mapping[str, str]

    def checked(self, name: str) -> Path:
        path = self.folder / name
        try:
            digest = digest_of(_regular(path))
        except OSError as error:
            raise _unreadable(self.folder, name, error) from None
        if digest != self.digests.get(name):
            raise BundleError(
                f"{name} is corrupt: its digest is not the manifest's", where=str(self.folder), todo=COPY_AGAIN
            )
        return path

    def text(self, name: str) -> str:
        self.checked(name)
        return _text(self.folder, name)

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        text, where = self.text(name), f"{self.folder.name}/{name}"
        if not _shows(text):
            raise _corrupt(where, "it has control characters")
        try:
            return parse(text)
        except (BundleError, InternalError) as error:  # these say where in the text
            raise _corrupt(where, str(error)) from None
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            raise _corrupt(where, "it is not a program") from None

    def arrays(self, name: str) -> Arrays:
        path, where = self.checked(name), f"{self.folder.name}/{name}"
        try:
            arrays = dict(load_file(path))
        except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError):  # numpy lacks some types
            raise _corrupt(where, "it is not a file of weights") from None
        if other := [str(a.dtype) for a in arrays.values() if str(a.dtype) not in DTYPES]:
            raise _corrupt(where, f"it holds elements of type {other[0]}")
        return arrays
