"""The engine that runs the emitted source on a real MP-SPDZ, all parties on this machine.

Everything happens in a private temporary folder, which is removed afterwards:

    program/                 the source, compiled there: nothing is written into the user's MP-SPDZ
    client/ provider/ helper/  what one party sees: the byte code, its own key, its own stream, the certificates of all
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mpcc.backends.mp_spdz.dialects import dialect_of, run_options_of
from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Int64, Job, JobResult, Measured
from mpcc.runtime.mp_spdz.home import FULL_BYTES, Home, find_home, party_binary, setup_of
from mpcc.runtime.parties.keys import install, make_identity, write_private
from mpcc.runtime.parties.processes import Limits, Party, last_line, run_parties
from mpcc.runtime.parties.watchdog import Watchdog

NAME = "mp-spdz"
PROGRAM = "mpcc_program"
KEEP = "MPCC_KEEP_WORK"
# Timers print their bytes with six digits unless told otherwise; -OF . makes this hold for every party.
_PREAMBLE = "print_float_precision(17)\n"
_STOPPED = re.compile(r"^Stopped timer (\d+) at (\S+) \((\S+) MB, (\d+) rounds\)", re.MULTILINE)
_INFERENCE, _WEIGHTS, _INPUTS, _OUTPUTS = 1, 2, 3, 4
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
Timers = dict[int, tuple[float, int, int]]  # timer -> seconds, bytes, rounds


def run_job(
    job: Job,
    *,
    home: Path | None = None,
    limits: Limits | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> JobResult:
    """Compile and run a job on the MP-SPDZ at `home` or at MP_SPDZ_HOME.

    `on_stage` is called with "compile", "run" and "read" as they begin. With MPCC_KEEP_WORK=1 the working folder stays.
    EngineError, with every process ended and the folder removed, if MP-SPDZ is missing or too old, the source does not
    compile, a party fails or stalls, or the outputs are not what the job says.
    """
    found = find_home(home)
    binary = party_binary(found, job.protocol)
    with working_folder() as (work, watchdog):
        on_stage("compile")
        compile_seconds = compile_source(job.source, job.protocol, found, work / "program", watchdog)
        parties = _prepare(job, binary, work)
        on_stage("run")
        run_parties(parties, watchdog, environment(), limits or Limits())
        on_stage("read")
        outputs = _read_outputs(job, parties[0])
        return JobResult(outputs, _measure([_timers(p) for p in parties], compile_seconds))


@contextlib.contextmanager
def working_folder() -> Iterator[tuple[Path, Watchdog]]:
    """A private folder and the watchdog that removes it afterwards; an OSError inside becomes an EngineError.

    Programs that find no room on the disk fail in many ways, some without a word: that there is none is said instead.
    """
    parent = Path(tempfile.gettempdir())
    try:
        work = Path(tempfile.mkdtemp(prefix="mpcc-"))  # mode 0700
        with Watchdog(work, keep=os.environ.get(KEEP) == "1") as watchdog:
            try:
                yield work, watchdog
            except EngineError as error:
                if shutil.disk_usage(work).free < FULL_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
    except OSError as error:
        raise EngineError(
            f"the working folder or a process of it cannot be used: {error.strerror or error}",
            where=str(parent),
            todo="make room there, or set TMPDIR to another folder",
        ) from error


def environment() -> dict[str, str]:
    """What a child process sees of ours: nothing that could change what it does, and no byte code written by Python."""
    passed = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1"}


# ** compiling **
def compile_source(text: str, protocol: str, home: Home, folder: Path, watchdog: Watchdog, mode: str = "") -> float:
    """Compile the source in `folder`, in one of its modes; returns the seconds it took.

    The program is then called PROGRAM, or `program_name(mode)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{PROGRAM}.mpc"
    source.write_text(_PREAMBLE + text, "utf-8")
    # an absolute path: a bare name is also looked for in MP-SPDZ's own folder, and refused if it is there too
    command = [sys.executable, str(home.compiler), *dialect_of(protocol).compile_options, str(source)]
    command += [mode] if mode else []
    stdout, stderr = folder / "stdout", folder / "stderr"
    begin = time.monotonic()
    process = watchdog.start(command, cwd=folder, env=environment(), stdout=stdout, stderr=stderr)
    try:
        code = process.wait()
    finally:
        watchdog.end(process)
    if code or not (folder / "Programs" / "Schedules" / f"{program_name(mode)}.sch").is_file():
        said = last_line(stderr) or last_line(stdout) or "nothing"
        raise EngineError(f"MP-SPDZ's compiler refused the program: {said}", where=str(home.compiler))
    return time.monotonic() - begin


def program_name(mode: str = "") -> str:
    """What MP-SPDZ calls the program compiled in this mode."""
    return f"{PROGRAM}-{mode}" if mode else PROGRAM


def party_command(binary: Path, player: int, mode: str = "") -> list[str]:
    """The command line of a party; it runs in its own folder, where a file `hosts` says where all parties are."""
    options = ["-OF", ".", "-o", "no_memory_output", *run_options_of(binary.name)]
    return [str(binary), program_name(mode), "-p", str(player), "-ip", "hosts", *options]


# ** the parties' folders **
def _prepare(job: Job, binary: Path, work: Path) -> list[Party]:
    """One folder for each role, holding its own stream and key only."""
    roles = setup_of(job.protocol).roles
    identities = [make_identity(player) for player in range(len(roles))]
    certificates = {identity.name: identity.certificate for identity in identities}
    parties = []
    for player, role in enumerate(roles):
        folder = work / role
        data = folder / "Player-Data"
        data.mkdir(parents=True, mode=0o700)
        shutil.copytree(work / "program" / "Programs", folder / "Programs")
        install(data, identities[player], certificates)
        write_private(data / f"Input-Binary-P{player}-0", _stream(job, role).astype("<i8").tobytes())
        parties.append(Party(player, role, folder, party_command(binary, player)))
    return parties


def _stream(job: Job, role: str) -> Int64:
    own = {"client": job.client_stream, "provider": job.provider_stream}.get(role)
    return job.public_stream if own is None else np.concatenate([job.public_stream, own])


# ** results **
def _read_outputs(job: Job, client: Party) -> dict[str, Int64]:
    """Split the client's binary output into the named outputs."""
    path = client.folder / "Player-Data" / "Binary-Output-P0-0"
    content = path.read_bytes() if path.is_file() else b""
    wanted = sum(size for _, size in job.outputs)
    if len(content) != 8 * wanted:
        raise EngineError(
            f"the client received {len(content) // 8} numbers, the program promises {wanted}", where="party 0"
        )
    values = np.frombuffer(content, "<i8").astype(np.int64)
    ends = np.cumsum([size for _, size in job.outputs])
    return {name: values[end - size : end] for (name, size), end in zip(job.outputs, ends, strict=True)}


def _timers(party: Party) -> Timers:
    """The timers of one party, in seconds, bytes and rounds."""
    text = party.stdout.read_text("utf-8", "replace")
    return {int(n): (float(s), round(float(mb) * 1e6), int(r)) for n, s, mb, r in _STOPPED.findall(text)}


def _measure(timers: list[Timers], compile_seconds: float) -> Measured:
    """Put the parties' counters together."""
    missing = [player for player, t in enumerate(timers) if not {_INFERENCE, _WEIGHTS, _INPUTS, _OUTPUTS} <= t.keys()]
    if missing:
        raise EngineError("a party did not report what it sent", where=f"party {missing[0]}")

    def total(*which: int) -> int:
        return sum(t[timer][1] for t in timers for timer in which)

    return Measured(
        engine=NAME,
        bytes_by_party=tuple(t[_INFERENCE][1] for t in timers),
        rounds_by_party=tuple(t[_INFERENCE][2] for t in timers),
        seconds=max(t[_INFERENCE][0] for t in timers),
        provisioning_bytes=total(_WEIGHTS),
        provisioning_seconds=max(t[_WEIGHTS][0] for t in timers),
        input_bytes=total(_INPUTS, _OUTPUTS),
        compile_seconds=compile_seconds,
    )
