"""What SPU runs of a program: made from the graph inside MPC, or read from the files of a role that does not have it.

prog.mpcc/spu/program.mlir   the StableHLO text
prog.mpcc/spu/program.json   its arguments and results, its digest, and that of the program it belongs to
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpcc.backends.spu.bounds import with_bounds
from mpcc.backends.spu.program import Input, Output, StableHlo
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.runtime.deployment import Deployment

FOLDER, TEXT, TABLE = "spu", "program.mlir", "program.json"
VERSION = 1
_TODO = "copy it again, or split the program again"


def code_of(program: Deployment) -> StableHlo:
    """What SPU runs of a program; its role's files go before its graph.

    Raises:
        BundleError: neither is here, or the files are not this program's.
        UnsupportedError: see `emit_stablehlo`.
    """
    if program.path is not None and (program.mpc is None or _folder(program.path).is_dir()):
        return read_code(program.path)
    if program.mpc is None:
        raise BundleError("the graph inside MPC is not here", todo="compile again, or split the program again")
    return made_of(program.mpc, program.ring)


def made_of(mpc: Graph, ring: RingGraph) -> StableHlo:
    """StableHLO of the graph inside MPC; the ring program knows some magnitudes. UnsupportedError as above."""
    return emit_stablehlo(with_bounds(mpc, ring))


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
    folder = _folder(program)
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


def _folder(program: Path) -> Path:
    return program.with_suffix(".mpcc") / FOLDER


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
