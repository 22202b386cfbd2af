"""Running the parties of one job on this machine, and ending them all when one fails or nothing moves any more."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.connections import connections_here, peer_gone
from mpcc.runtime.parties.loopback_only import close_to_others
from mpcc.runtime.parties.watchdog import Watchdog

PORT_ATTEMPTS = 5
_TAKEN = "Binding to socket"  # what MP-SPDZ says, and then tries again for ten minutes
_STARTED = "Starting timer"  # every emitted program starts a timer first: the parties are connected
# what a party says when it failed because another one had
_CONSEQUENCES = ("communication", "another party", "encountered a problem", "connect", "stream truncated")
_CONSEQUENCE = 2  # a party has lost another one
_MIXED = "the stored shares of the parties are not of one provisioning"  # what the emitted program says
_DEALER = "dealer"  # it holds no share, so the mark behind them always comes out wrong there
_NUMBER = re.compile(r"\d{6,}")
_TAIL = 1 << 15  # bytes of an output in which its last line is looked for
_GONE = 3.0  # seconds without work after which closed connections are looked for
_CPU_STEP = 0.02  # seconds that count as progress


class PortTaken(Exception):
    """Another process has one of the ports: try others."""


class Consequence(EngineError):
    """A party failed because it has lost another one."""


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds: for all parties to be connected, and without any sign of work after that."""

    start: float = 25.0
    idle: float = 25.0


@dataclass
class Party:
    """One party: who it is, the folder in which it runs (nothing in it is another's), and its process.

    `log_line` is what lines of its engine's own log look like: they never say why it failed.
    """

    player: int
    role: str
    folder: Path
    command: list[str]
    log_line: re.Pattern[str] | None = None
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def stdout(self) -> Path:
        return self.folder / "stdout"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr"

    @property
    def output_size(self) -> int:
        return sum(p.stat().st_size for p in (self.stdout, self.stderr) if p.exists())

    def last_line(self) -> str:
        """What the party said last, errors first; numbers that might be values are masked."""
        said = (last_line(path, self.log_line) for path in (self.stderr, self.stdout))
        return next((line for line in said if line), "nothing")


def free_ports(count: int) -> list[int]:
    """Ports that were free on the loopback a moment ago.

    The parties connect to 127.0.0.1 only, but MP-SPDZ itself listens on every interface (see loopback_only.py); who
    connects there without a certificate of this run is turned away.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


def run_parties(
    parties: list[Party],
    watchdog: Watchdog,
    env: dict[str, str],
    limits: Limits,
    addresses: Sequence[str] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run all parties to their end; every process is gone when this returns or raises.

    A file `hosts` with everybody's address is written into each party's folder: `addresses` by player, or this machine
    with free ports if all parties run here. `watch` is called again and again while they run.
    EngineError if a party fails or none makes progress; its message names the role and the party's last line.
    """
    if addresses is not None:
        try:
            _run_once(parties, addresses, watchdog, env, limits, watch)
        except PortTaken:
            where = ", ".join(addresses[p.player] for p in parties)
            todo = "start all parties again: they choose other ports"
            raise EngineError("another process has taken a port that was free", where=where, todo=todo) from None
        return
    for _ in range(PORT_ATTEMPTS):
        ports = free_ports(len(parties))
        try:
            _run_once(parties, [f"127.0.0.1:{port}" for port in ports], watchdog, env, limits, watch)
            return
        except PortTaken:
            continue
    raise EngineError(
        f"found no free port for the parties in {PORT_ATTEMPTS} attempts",
        where="127.0.0.1",
        todo="end what occupies the ports of this machine",
    )


def _run_once(
    parties: list[Party],
    addresses: Sequence[str],
    watchdog: Watchdog,
    env: dict[str, str],
    limits: Limits,
    watch: Callable[[], None],
) -> None:
    hosts = "".join(f"{address}\n" for address in addresses)
    try:
        for party in parties:
            (party.folder / "hosts").write_text(hosts, "ascii")
            party.process = watchdog.start(
                party.command, cwd=party.folder, env=env, stdout=party.stdout, stderr=party.stderr
            )
        _supervise(parties, limits, watch)
    finally:
        for party in parties:
            if party.process is not None:
                watchdog.end(party.process)


def _supervise(parties: list[Party], limits: Limits, watch: Callable[[], None]) -> None:
    """Wait until every party has ended well."""
    begin = moved = time.monotonic()
    seen, pause, connected = _activity(parties), 0.002, False
    open_to_all = {p.process.pid for p in parties if p.process is not None}
    connections: dict[int, frozenset[str]] = {}
    while True:
        codes = [p.process.poll() for p in parties if p.process is not None]
        if all(code == 0 for code in codes):
            return
        watch()
        if any(codes):
            _raise_failure(parties)
        now, activity = time.monotonic(), _activity(parties)
        if activity[0] != seen[0] or abs(activity[1] - seen[1]) >= _CPU_STEP:
            seen, moved = activity, now
        if not connected:
            open_to_all = {pid for pid in open_to_all if not close_to_others(pid)}
            _check_ports(parties)
            connected = all(_has(p.stdout, _STARTED) for p in parties)
            if connected:
                connections = {p.player: connections_here(p.process.pid) for p in parties if p.process is not None}
        if not connected and now - begin > limits.start:
            alone = "; is every other party started?" if len(parties) == 1 else ""
            _raise_stall(parties, f"the parties did not connect within {limits.start:g} s{alone}")
        if connected and now - moved > _GONE:
            _check_connections(parties, connections)
        if now - moved > limits.idle:
            _raise_stall(parties, f"no party made progress for {limits.idle:g} s")
        time.sleep(pause)
        pause = min(0.05 if connected or not open_to_all else 0.01, pause * 1.5)


def _raise_failure(parties: list[Party]) -> None:
    """Report the party that failed first.

    When one dies, the others fail over the broken connection a moment later: one that was killed, or that does not
    speak of its connection, is the cause.
    """
    time.sleep(0.2)
    _check_ports(parties)
    failed = [p for p in parties if p.process is not None and p.process.poll()]
    culprit = min(failed, key=_suspicion)
    if any(_has(p.stdout, _MIXED) for p in parties if p.role != _DEALER):
        raise EngineError(_MIXED, where=f"the {culprit.role}'s state", todo="provision again, all parties together")
    kind = Consequence if _suspicion(culprit) == _CONSEQUENCE else EngineError
    raise kind(
        f"the {culprit.role} {_ending(culprit)}; its last line: {culprit.last_line()}",
        where=f"party {culprit.player}",
    )


def _suspicion(party: Party) -> int:
    """Lower is more likely to be the cause of a failure: 0 killed from outside, 1 its own error, _CONSEQUENCE."""
    code = party.process.returncode if party.process is not None else 0
    if code == -signal.SIGABRT or code > 0:
        return _CONSEQUENCE if any(word in party.last_line() for word in _CONSEQUENCES) else 1
    return 0


def _ending(party: Party) -> str:
    code = party.process.returncode if party.process is not None else 0
    if code >= 0:
        return f"failed (exit code {code})"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _raise_stall(parties: list[Party], what: str) -> None:
    """Report a run that does not go on, and who is the cause as far as can be seen."""
    stopped = [p for p in parties if p.process is not None and _process_state(p.process.pid) in ("T", "t")]
    told = stopped or parties
    lines = ", ".join(f"{p.role}{' (stopped)' if p in stopped else ''}: {p.last_line()}" for p in told)
    raise EngineError(f"{what}; last line of the {lines}", todo="see whether a party is blocked, and run again")


def _check_connections(parties: list[Party], connections: Mapping[int, Set[str]]) -> None:
    """Report a party that waits for what will never come."""
    for party in parties:
        if party.process is not None and peer_gone(party.process.pid, connections[party.player]):
            raise Consequence(
                f"the {party.role} failed: another party has closed its connection",
                where=f"party {party.player}",
                todo="see what the other parties say",
            )


def _check_ports(parties: list[Party]) -> None:
    if any(_has(p.stderr, _TAKEN) for p in parties):
        raise PortTaken


def _has(path: Path, text: str) -> bool:
    """Whether the beginning of a party's output contains `text`."""
    with path.open("rb") as file:
        return text.encode() in file.read(1 << 16)


def last_line(path: Path, log_line: re.Pattern[str] | None = None) -> str:
    """The last line of an output that is not empty and not one of an engine's own log, shortened, with long numbers
    masked; "" if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if log_line is None or not log_line.match(line)]
    return _NUMBER.sub("#", lines[-1])[:300] if lines else ""


def _activity(parties: list[Party]) -> tuple[int, float]:
    """Bytes of output and seconds of processor time of all living parties together (it falls when one ends)."""
    cpu = sum(_cpu_seconds(p.process.pid) for p in parties if p.process is not None)
    return sum(p.output_size for p in parties), cpu


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; [] where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _process_state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _cpu_seconds(pid: int) -> float:
    """Processor time used so far; where the system does not tell, time itself, which counts as progress."""
    fields = _stat(pid)
    if fields:
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0 if Path("/proc/self/stat").exists() else time.monotonic()
