"""The connections of a process, as the system tells: whether one is closed at its other end, and where it listens.

A party that waits for its own input does not notice that another one is gone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Set
from pathlib import Path

_ESTABLISHED, _CLOSE_WAIT, _LISTEN = "01", "08", "0A"  # the second: the other end has closed, this one has not
_LOOPBACK = 127  # the first byte of the addresses of this machine
_SOCKET = "socket:["


def connections_here(pid: int) -> frozenset[str]:
    """The process's connections to this machine, which are open at both ends; none where the system does not tell."""
    return _sockets_in(pid, _ESTABLISHED)


def peer_gone(pid: int, connections: Set[str]) -> bool:
    """True if one of these connections was closed at its other end; False where the system does not tell.

    A stranger who connects to the engine's port and leaves is not among them, and ends nothing.
    """
    return bool(_sockets_in(pid, _CLOSE_WAIT) & connections)


def _sockets_in(pid: int, state: str) -> frozenset[str]:
    try:
        rows = [f for f in _table(pid, "tcp") if f[3] == state and _is_here(f[2])]
        return frozenset({fields[9] for fields in rows} & _sockets(pid).keys()) if rows else frozenset()
    except OSError:
        return frozenset()


def _is_here(address: str) -> bool:
    """From the form of /proc/net/tcp: the address as a native 32-bit word and the port, in hexadecimal."""
    word = int(address.partition(":")[0], 16).to_bytes(4, sys.byteorder)
    return word[0] == _LOOPBACK


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
