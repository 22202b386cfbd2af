"""The watchdog's process: it outlives its parent just long enough to clean up after it.

It reads from its parent which process groups were started, and which folders are half-made. When the parent is gone,
however it ended, the pipe closes, and what is still registered is ended and the folders removed; the working folder too
(which holds keys and a client's input). Run as a script, with the folder to remove (or nothing) as its argument; it
imports nothing of mpcc.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def kill_group(group: int) -> None:
    """SIGKILL to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Follow the parent's messages until it is gone, then clean up."""
    groups: set[int] = set()
    folders = sys.argv[1:]
    for line in sys.stdin:
        if line[0] == "/":
            folders.append(line.rstrip("\n"))
        else:
            (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        kill_group(group)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
