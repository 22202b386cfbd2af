"""No orphans: whatever happens to this process, the processes that it started end and their folder goes."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from mpcc.runtime.parties import guard
from mpcc.runtime.parties.guard import kill_group
from mpcc.runtime.parties.start import interruptible


class Watchdog:
    """Guards the process groups and the folder of one job, as a context manager."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        """The folder is removed on leaving the context, or when this process dies, unless `keep`."""
        self.folder, self.keep = folder, keep
        self.groups: set[int] = set()
        command = [sys.executable, "-I", str(Path(guard.__file__).resolve()), *([] if keep else [str(folder)])]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def start(
        self, command: list[str], *, cwd: Path, env: dict[str, str], stdout: Path, stderr: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own that signals can end, its output going to files."""
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                interruptible(command),
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                umask=0o077,
            )
        _no_core_dump(process.pid)
        self.groups.add(process.pid)
        self._tell(f"+{process.pid}")
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and all that it started, and wait until it is gone; nothing if that was done."""
        if process.pid not in self.groups:
            return
        kill_group(process.pid)
        process.wait()
        self.groups.discard(process.pid)
        self._tell(f"-{process.pid}")

    def removes(self, folder: Path) -> None:
        """Remove this folder too when this process dies, or on leaving the context, if it still has this name."""
        name = str(folder.resolve())
        if "\n" not in name:
            self._tell(name)

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self.groups:
            kill_group(group)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a dead watchdog must not end the run
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()


def _no_core_dump(pid: int) -> None:
    """A core dump would hold shares and keys. One byte rather than none: Linux pipes dumps to a program, if there is
    one, whatever the limit, except for a limit of one."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere the user's own limit holds
        resource.prlimit(pid, resource.RLIMIT_CORE, (1, 1))
