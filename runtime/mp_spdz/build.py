"""MP-SPDZ's compiler, which makes byte code of the emitted source, and the command line of a party that runs it.

A program is compiled in a folder of ours: nothing is written into the user's MP-SPDZ.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mpcc.backends.mp_spdz.dialects import dialect_of, run_options_of
from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz.home import Home
from mpcc.runtime.parties.folders import environment
from mpcc.runtime.parties.processes import last_line
from mpcc.runtime.parties.watchdog import Watchdog

PROGRAM = "mpcc_program"
# modes of an emitted program; without one it is another tool's way to run it
PROVISION, INFER, SERVE = "provision", "infer", "serve"
# Timers print their bytes with six digits unless told otherwise; -OF . makes this hold for every party.
_PREAMBLE = "print_float_precision(17)\n"


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
