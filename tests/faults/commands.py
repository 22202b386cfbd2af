"""Commands of mpcc as processes of their own, each a fork of one process that has imported everything already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "torch",
        "tokenizers",
        "mpcc.api",
        "mpcc.batches",
        "mpcc.cli.answers",
        "mpcc.cli.app",
        "mpcc.exchange",
        "mpcc.inspection",
        "mpcc.loading",
        "mpcc.report.session",
        "mpcc.runtime.engines",
        "mpcc.runtime.parties.hosts",
        "mpcc.runtime.parties.keys",
        "mpcc.split",
    ]
)
NOTHING = "/dev/null"
LIMIT = 180.0  # seconds in which a command ends, on a machine that is busy with something else


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it said; a negative code is a signal's number."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Around:
    """What a command finds: its folder, environment and streams (paths), and limits of its own."""

    folder: Path
    env: Mapping[str, str]
    stdin: str = NOTHING
    stdout: str = NOTHING
    stderr: str = NOTHING
    limits: tuple[tuple[int, int], ...] = ()


def become(arguments: Sequence[str], around: Around) -> None:
    """Be the command from here on. Runs in a process of its own."""
    os.chdir(around.folder)
    os.environ.clear()
    os.environ.update(around.env)
    tempfile.tempdir = None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (path, flags) in enumerate(
        ((around.stdin, os.O_RDONLY), (around.stdout, os.O_WRONLY), (around.stderr, os.O_WRONLY))
    ):
        opened = os.open(path, flags | os.O_CREAT * (flags != os.O_RDONLY), 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    for limit, most in around.limits:
        resource.setrlimit(limit, (most, most))
    sys.argv = ["mpcc", *arguments]
    from mpcc.cli.app import main

    main()


class Command:
    """`mpcc ARGUMENTS`, running. What it says goes to files in a folder of the test's own."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        said: Path,
        env: Mapping[str, str],
        *,
        spoken: bool = False,
        stdin: str = NOTHING,
        stdout: str = "",
        limits: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """`spoken`: its standard input is what `tell` says, until `hang_up`. `stdout`: where its output goes."""
        said.mkdir(parents=True, exist_ok=True)
        self.name = tempfile.mktemp(prefix="", dir=said)
        self.out, self.err, given = Path(f"{self.name}.out"), Path(f"{self.name}.err"), f"{self.name}.in"
        if spoken:
            os.mkfifo(given, 0o600)
        around = Around(
            folder, dict(env), given if spoken else stdin, stdout or str(self.out), str(self.err), tuple(limits)
        )
        self.process = _SERVER.Process(target=become, args=(tuple(arguments), around))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid
        self.input = os.open(given, os.O_WRONLY) if spoken else -1

    @property
    def running(self) -> bool:
        return self.process.exitcode is None

    def tell(self, line: str) -> None:
        os.write(self.input, line.encode() + b"\n")

    def hang_up(self) -> None:
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def said(self, lines: int) -> list[str]:
        """The first complete lines of its output, once there are so many or it has ended."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            running = self.running
            text = self.out.read_text("utf-8", "replace") if self.out.exists() else ""
            if text.count("\n") >= lines or not running:
                return text.splitlines()
            time.sleep(0.01)
        raise AssertionError(f"no {lines} lines in time")

    def end(self, seconds: float = LIMIT) -> Ended:
        """Wait for its end. AssertionError, and the process is gone, if it does not come."""
        self.process.join(seconds)
        if self.running:
            self.kill()
            raise AssertionError(f"it did not end; it said: {self._text(self.err)}")
        self.hang_up()
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, self._text(self.out), self._text(self.err))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.join(30)
        self.hang_up()

    def _text(self, path: Path) -> str:
        return path.read_text("utf-8", "replace") if path.exists() else ""
