"""The connections of a process, as the system tells: whether one is closed at its other end, and where it listens.

A party that waits for its own input does not notice that another one is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_CLOSE_WAIT, _LISTEN = "08", "0A"  # the former: the other end has closed, this one has not
_SOCKET = "socket:["


def peer_gone(pid: int) -> bool:
    """True if a TCP connection of the process was closed at its other end; False where the system does not tell."""
    try:
        waiting = {fields[9] for fields in _table(pid, "tcp", "tcp6") if fields[3] == _CLOSE_WAIT}
        return bool(waiting) and bool(waiting & _sockets(pid).keys())
    except OSError:
        return False


def listening(pid: int) -> list[int]:
    """The descriptors at which a process waits for IPv4 connections; [] where the system does not tell."""
    try:
        waiting = {fields[9] for fields in _table(pid, "tcp") if fields[3] == _LISTEN}
        return [descriptor for inode, descriptor in _sockets(pid).items() if inode in waiting]
    except OSError:
        return []


def _table(pid: int, *names: str) -> Iterator[list[str]]:
    """The lines of the system's tables of connections, in fields."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]:
                yield line.split()


def _sockets(pid: int) -> dict[str, int]:
    """The sockets that the process has open: inode -> descriptor."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith(_SOCKET):
                found[target[len(_SOCKET) : -1]] = int(entry.name)
    return found
