"""The folders in which SPU's compiler and parties run: nothing in a party's folder is another's.

    program/                     the StableHLO text, compiled there in a process of its own
    client/ provider/ helper/    what one party sees, see party.py

No file is readable for others, and no value is given to a party that does not own it.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpcc.backends.spu.program import Input, StableHlo
from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Arrays
from mpcc.runtime.parties.folders import environment
from mpcc.runtime.parties.processes import Limits, Party, last_line
from mpcc.runtime.parties.site import Site
from mpcc.runtime.parties.watchdog import Watchdog
from mpcc.runtime.spu import party as spu_party
from mpcc.runtime.spu.protocols import FRACTION_BITS, INSTALL, LARGEST, protocol_of

# lines of brpc's log (I1128 03:13:28.677911 ...) and of SPU's ([2025-12-11 10:00:00.123] [info] ...)
LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ |\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\] ")
TASK = "task.json"
COMPILE_SECONDS = 600.0
MORE_SECONDS = 60.0  # a message is waited for that much longer than anything may stand still
Array = NDArray[np.float32]


# ** values **
def checked_value(i: int, leaf: Input, held: Arrays) -> Array:
    """The value of argument `i`, among those that its owner holds, as far as it fits the ring.

    EngineError if it is not there, of another shape, or not a number.
    """
    if leaf.value is not None:
        return np.full(leaf.shape, leaf.value, np.float32)
    if leaf.tensor not in held:
        raise EngineError(f"the {leaf.owner} does not hold argument {i} of the program", where=leaf.tensor)
    value = np.asarray(held[leaf.tensor], np.float32)
    if value.shape != leaf.shape:
        raise EngineError(f"argument {i} is {value.shape}, the program takes {leaf.shape}", where=leaf.tensor)
    if np.isnan(value).any():
        raise EngineError(f"argument {i} holds a value that is not a number", where=leaf.tensor)
    return np.clip(value, -LARGEST, LARGEST)


def check_visibilities(program: StableHlo, public: Arrays) -> None:
    """EngineError where an argument is not as secret as its owner needs."""
    for leaf in program.inputs:
        if leaf.owner == "provider" and (not leaf.secret or leaf.tensor in public):
            raise EngineError("wrong visibility: a weight of the provider is marked public", where=leaf.tensor)
        if leaf.owner == "public" and leaf.secret:
            raise EngineError("wrong visibility: a public weight is marked secret", where=leaf.tensor)


def values_of(program: StableHlo, owner: str, held: Arrays) -> dict[str, Array]:
    """The arguments of one owner by their number, checked."""
    return {str(i): checked_value(i, leaf, held) for i, leaf in enumerate(program.inputs) if leaf.owner == owner}


# ** compiling **
def _command(action: str) -> list[str]:
    return [sys.executable, "-I", str(Path(spu_party.__file__).resolve()), action]


def compile_program(program: StableHlo, folder: Path, watchdog: Watchdog) -> float:
    """Compile the text in `folder`; returns the seconds it took. EngineError if the engine refuses it."""
    folder.mkdir()
    (folder / "program.mlir").write_text(program.text, "ascii")
    (folder / TASK).write_text(json.dumps({"inputs": [{"secret": i.secret} for i in program.inputs]}), "ascii")
    begin = time.monotonic()
    process = watchdog.start(
        _command("compile"), cwd=folder, env=environment(), stdout=folder / "stdout", stderr=folder / "stderr"
    )
    try:
        code = process.wait(COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    finally:
        watchdog.end(process)
    if code or not (folder / "program.pphlo").is_file():
        how = f"refused the program (exit code {code})" if code >= 0 else f"was ended by signal {-code}"
        said = last_line(folder / "stderr", LOG_LINE) or last_line(folder / "stdout", LOG_LINE) or "nothing"
        raise EngineError(f"SPU's compiler {how}: {said}", todo=f"see whether the wheel is whole: {INSTALL}")
    return time.monotonic() - begin


# ** the parties **
def prepare(
    program: StableHlo,
    protocol: str,
    public: Arrays,
    weights: Arrays,
    site: Site,
    limits: Limits,
    work: Path,
) -> list[Party]:
    """One folder for each role of the site, holding its own values only; `weights` are the provider's."""
    roles = protocol_of(protocol).roles
    owners = [spu_party.PUBLIC if i.owner == "public" else roles.index(i.owner) for i in program.inputs]
    task = {
        "parties": len(roles),
        "protocol": protocol,
        "fraction_bits": FRACTION_BITS,
        "outputs": [list(o.shape) for o in program.outputs],
        "inputs": [
            {"owner": o, "secret": i.secret, "shape": list(i.shape)}
            for i, o in zip(program.inputs, owners, strict=True)
        ],
        "connect_tries": math.ceil((limits.start + MORE_SECONDS) * 1000 / spu_party.TRY_AGAIN_MS),
        "receive_seconds": limits.idle + MORE_SECONDS,
    }
    everybodys = values_of(program, "public", public)
    return [
        _party(role, roles.index(role), task, everybodys, weights if role == "provider" else {}, work)
        for role in site.identities
    ]


def _party(
    role: str,
    rank: int,
    task: Mapping[str, object],
    public: Arrays,
    weights: Arrays,
    work: Path,
) -> Party:
    folder = work / role
    folder.mkdir(mode=0o700)
    (folder / TASK).write_text(json.dumps({**task, "rank": rank}), "ascii")
    (folder / "program.pphlo").write_bytes((work / "program" / "program.pphlo").read_bytes())
    _write_arrays(folder / "weights.npz", weights)
    _write_arrays(folder / "public.npz", public)
    return Party(rank, role, folder, _command("party"), LOG_LINE)


def join_session(party: Party, session: str) -> None:
    """Say which session a party takes part in: a random number, the same for all parties."""
    path = party.folder / TASK
    path.write_text(json.dumps(json.loads(path.read_text("ascii")) | {"session": session}), "ascii")


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def request_of(program: StableHlo, values: Arrays) -> NDArray[np.int64]:
    """The client's arguments as one stream: the bits of float64 numbers. EngineError as `checked_value`."""
    own: Sequence[Array] = list(values_of(program, "client", values).values())
    parts = [value.astype("<f8").reshape(-1) for value in own]
    return np.concatenate(parts).view(np.int64) if parts else np.zeros(0, np.int64)
