"""Taking a port of an engine away from other hosts.

MP-SPDZ listens on every interface and cannot be told otherwise, although all that has to reach it is on this machine;
and whoever sends it eight wrong bytes ends it. So its own socket is told to take connections from the loopback only, by
a filter in the system (Linux has it, from 5.6 on) that drops what comes from elsewhere.

Where the system does not let a process reach into its child, as in most containers, the port stays as it is: there the
network of the container decides who reaches it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys

from mpcc.runtime.parties.connections import listening

_PIDFD_GETFD = 438  # the number of the system call on all machines
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _IF_EQUAL, _RETURN = 0x30, 0x15, 0x06
_SENDER = 0x100000000 - 0x100000 + 12  # the first byte of the sender's address, in the IPv4 header
_LOOPBACK, _ALL = 127, 0xFFFFFFFF
# (what to do, to skip if it holds, to skip if not, operand)
_FILTER = ((_LOAD_BYTE, 0, 0, _SENDER), (_IF_EQUAL, 0, 1, _LOOPBACK), (_RETURN, 0, 0, _ALL), (_RETURN, 0, 0, 0))


def close_to_others(pid: int) -> bool:
    """Whether a process listens by now, and every such port of it was closed to other hosts if that can be done."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return True
    found = listening(pid)
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            for descriptor in found:
                _filter(process, descriptor)
        finally:
            os.close(process)
    return bool(found)


def _filter(process: int, descriptor: int) -> None:
    copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    with socket.socket(fileno=copy) as taken:
        content = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _FILTER))
        program = struct.pack("@HP", len(_FILTER), ctypes.addressof(content))
        taken.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
