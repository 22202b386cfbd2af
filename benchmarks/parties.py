"""Compile a program on the MP-SPDZ of this machine, run it by three parties, and read their counters.

Both sides of a comparison go through `measure`, so nothing but the program and its inputs differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpcc.runtime.mp_spdz.build import compile_source, party_command, program_name
from mpcc.runtime.mp_spdz.counters import Timer, counts_of, total
from mpcc.runtime.mp_spdz.home import find_home, party_binary
from mpcc.runtime.parties.folders import environment, working_folder
from mpcc.runtime.parties.keys import install, make_identity
from mpcc.runtime.parties.processes import Limits, Party, run_parties
from mpcc.runtime.parties.watchdog import Watchdog

PROTOCOL = "ring"
PARTIES = 3
RUNS = 5  # the fastest counts: what else the machine does only ever adds
_SECONDS = "compile_seconds"


@dataclass(frozen=True)
class Measurement:
    """One inference by three parties: their counters, and what compiling the program took."""

    bytes_by_party: tuple[int, ...]
    rounds_by_party: tuple[int, ...]
    seconds: float
    compile_seconds: float
    byte_code: int
    output: bytes

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_by_party)

    @property
    def rounds(self) -> int:
        return max(self.rounds_by_party)


def measure(
    source: str,
    prepare: Callable[[Path], None],
    streams: Callable[[Path], tuple[bytes, ...]],
    trunc_error: bool,
    keep: Path | None = None,
    runs: int = RUNS,
    mode: str = "",
) -> Measurement:
    """Compile `source` and run it `runs` times; seconds are those of the fastest run, all else is the same in each.

    Args:
        prepare: is given the folder before the program is compiled in it.
        streams: is given the same folder afterwards; what each party reads as its binary input.
        trunc_error: run the parties with the flags that mpcc runs them with, else with MP-SPDZ's own defaults.
        keep: where the compiled program is kept, and taken from if it is there already; None: nowhere.
        mode: of a program that has several.
    """
    home = find_home()
    binary = party_binary(home, PROTOCOL)
    with working_folder() as (work, watchdog):
        folder = work / "program"
        compile_seconds = _kept(keep, folder)
        if compile_seconds is None:
            folder.mkdir()
            prepare(folder)
            compile_seconds = compile_source(source, PROTOCOL, home, folder, watchdog, mode)
            _keep(keep, folder, compile_seconds)
        found = [
            _run(work / f"run{i}", folder, (binary, mode), streams(folder), trunc_error, watchdog) for i in range(runs)
        ]
        byte_code = _byte_code(folder, mode)
    counters, output = min(found, key=lambda run: max(seconds for seconds, _, _ in run[0]))
    return Measurement(
        bytes_by_party=tuple(c[1] for c in counters),
        rounds_by_party=tuple(c[2] for c in counters),
        seconds=max(c[0] for c in counters),
        compile_seconds=compile_seconds,
        byte_code=byte_code,
        output=output,
    )


def _kept(keep: Path | None, folder: Path) -> float | None:
    """Copy a kept program to `folder`; the seconds that compiling it took, or None if there is none."""
    if keep is None or not (keep / _SECONDS).is_file():
        return None
    shutil.copytree(keep, folder)
    return float((keep / _SECONDS).read_text("utf-8"))


def _keep(keep: Path | None, folder: Path, compile_seconds: float) -> None:
    if keep is not None:
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(folder, keep)
        (keep / _SECONDS).write_text(f"{compile_seconds}\n", "utf-8")


def _run(
    work: Path,
    program: Path,
    called: tuple[Path, str],
    streams: tuple[bytes, ...],
    trunc_error: bool,
    watchdog: Watchdog,
) -> tuple[list[tuple[float, int, int]], bytes]:
    """(every party's counters, the output) of one run of a party program in a mode; its folders are removed."""
    identities = [make_identity(player) for player in range(PARTIES)]
    parties = [_party(work, program, player, called, stream, trunc_error) for player, stream in enumerate(streams)]
    for party, identity in zip(parties, identities, strict=True):
        install(party.folder / "Player-Data", identity, {i.name: i.certificate for i in identities})
    run_parties(parties, watchdog, environment(), Limits(start=120.0, idle=120.0))
    counters = [_counters(party) for party in parties]
    output = (parties[0].folder / "Player-Data" / "Binary-Output-P0-0").read_bytes()
    shutil.rmtree(work)
    return counters, output


def _party(work: Path, program: Path, player: int, called: tuple[Path, str], stream: bytes, trunc_error: bool) -> Party:
    """One party's folder: the program, the keys, and its input."""
    folder = work / f"party{player}"
    data = folder / "Player-Data"
    data.mkdir(parents=True)
    shutil.copytree(program / "Programs", folder / "Programs")
    (data / f"Input-Binary-P{player}-0").write_bytes(stream)
    command = party_command(called[0], player, called[1])
    if not trunc_error:
        at = command.index("--trunc-error")
        command = command[:at] + command[at + 2 :]
    return Party(player, f"party {player}", folder, command)


def _counters(party: Party) -> tuple[float, int, int]:
    """Seconds, bytes and rounds of a party's inference."""
    counts = counts_of(party)
    if Timer.INFERENCE not in counts:
        raise RuntimeError(f"party {party.player} printed no timer")
    return total(counts, Timer.INFERENCE)


def _byte_code(folder: Path, mode: str) -> int:
    """Size of all tapes of the program."""
    return sum(path.stat().st_size for path in (folder / "Programs" / "Bytecode").glob(f"{program_name(mode)}*"))
