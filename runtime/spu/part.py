"""What every role needs of a program to run it on SPU, as files of its part: without torch it cannot be derived.

    prog.mpcc/spu/program.mlir   the StableHLO text
    prog.mpcc/spu/program.json   its arguments and results, its digest, and that of the program it belongs to

Weights are read from the same files as for every engine, as numbers instead of ring elements.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mpcc.backends.spu.program import Input, Output, StableHlo
from mpcc.compiler.bundle.role_part import private_tensors, public_tensors
from mpcc.compiler.errors import BundleError
from mpcc.runtime.spu.folders import Array

FOLDER, TEXT, TABLE = "spu", "program.mlir", "program.json"
VERSION = 1
_TODO = "copy it again, or split the program again"


def spu_files(code: StableHlo, source: bytes) -> dict[str, str]:
    """Name and content of each file of the part; `source` is the program that `code` was made beside."""
    table = {
        "version": VERSION,
        "source": _digest(source),
        "text": _digest(code.text.encode()),
        "inputs": [asdict(i) for i in code.inputs],
        "outputs": [asdict(o) for o in code.outputs],
    }
    return {f"{FOLDER}/{TEXT}": code.text, f"{FOLDER}/{TABLE}": json.dumps(table, indent=1) + "\n"}


def read_code(program: Path) -> StableHlo:
    """What SPU runs, from the part of prog.mpc.

    Raises:
        BundleError: it is not there, corrupt, or of another program.
    """
    folder = program.with_suffix(".mpcc") / FOLDER
    if not folder.is_dir():
        raise BundleError(
            "this part of the program has no files for the spu engine",
            where=str(folder),
            todo="split the program again: mpcc split writes them where spu can run it",
        )
    try:
        text, source = (folder / TEXT).read_text("ascii"), program.read_bytes()
        table = json.loads((folder / TABLE).read_text("utf-8"))
        if table["version"] != VERSION:
            raise BundleError("the files for the spu engine are of another mpcc", where=str(folder), todo=_TODO)
        if table["source"] != _digest(source):
            raise BundleError("the files for the spu engine are of another program", where=str(folder), todo=_TODO)
        if table["text"] != _digest(text.encode()):
            raise BundleError("a file is not the program's: its digest differs", where=str(folder / TEXT), todo=_TODO)
        return StableHlo(
            text,
            tuple(_input(i) for i in table["inputs"]),
            tuple(Output(str(o["name"]), tuple(o["shape"])) for o in table["outputs"]),
        )
    except OSError as error:
        raise BundleError(f"cannot read a file: {error.strerror}", where=str(folder), todo=_TODO) from None
    except (ValueError, KeyError, TypeError):
        raise BundleError("the file is corrupt", where=str(folder), todo=_TODO) from None


def _input(entry: dict[str, Any]) -> Input:
    return Input(str(entry["tensor"]), tuple(entry["shape"]), entry["owner"], bool(entry["secret"]), entry["value"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ** weights **
def read_public(program: Path) -> dict[str, Array]:
    """The public weights inside MPC, by name. BundleError as `role_part.read_deployment`."""
    return _floats(public_tensors(program))


def read_private(program: Path) -> dict[str, Array]:
    """The provider's weights, by name. BundleError as `role_part.read_weights`."""
    return _floats(private_tensors(program))


def _floats(tensors: dict[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}
