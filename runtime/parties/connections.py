"""Whether the other end of a process's connections is gone: a party that waits for its own input does not notice."""

from __future__ import annotations

import contextlib
from pathlib import Path

_CLOSE_WAIT = "08"  # the other end has closed, this one has not
_SOCKET = "socket:["


def peer_gone(pid: int) -> bool:
    """True if a TCP connection of the process was closed at its other end; False where the system does not tell."""
    try:
        waiting = _waiting(pid)
        return bool(waiting) and bool(waiting & _sockets(pid))
    except OSError:
        return False


def _waiting(pid: int) -> set[str]:
    """Inodes of all sockets that the other end has closed."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _CLOSE_WAIT:
                    found.add(fields[9])
    return found


def _sockets(pid: int) -> set[str]:
    """Inodes of the sockets that the process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith(_SOCKET):
                found.add(target[len(_SOCKET) : -1])
    return found
