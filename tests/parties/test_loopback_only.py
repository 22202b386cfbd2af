"""A port that listens on every interface is closed to other hosts, seen from this machine's own outer address."""

import ctypes
import os
import socket
import subprocess
import sys

import psutil
import pytest

from mpcc.runtime.parties import loopback_only
from mpcc.runtime.parties.loopback_only import close_to_others

SERVER = """
import socket
listening = socket.create_server(("0.0.0.0", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(connection.recv(8))
"""


def outer_addresses():
    found = [a.address for one in psutil.net_if_addrs().values() for a in one if a.family is socket.AF_INET]
    return [address for address in found if not address.startswith("127.")]


def can_reach_into_children():
    """Containers often forbid it."""
    process = os.pidfd_open(os.getpid())
    copy = ctypes.CDLL(None).syscall(438, process, 0, 0)
    os.close(process)
    if copy >= 0:
        os.close(copy)
    return copy >= 0


needs_filter = pytest.mark.skipif(
    not hasattr(os, "pidfd_open") or not outer_addresses() or not can_reach_into_children(),
    reason="no outer address, or sockets of children cannot be reached here",
)


@pytest.fixture
def server():
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", SERVER], stdout=subprocess.PIPE, text=True)
    yield process.pid, int(process.stdout.readline())
    process.kill()
    process.communicate()


def echoed(address, port):
    with socket.create_connection((address, port), 1.0) as connection:
        connection.sendall(b"hello")
        return connection.recv(8)


@needs_filter
def test_only_this_machine_gets_through(server):
    pid, port = server
    (address, *_) = outer_addresses()
    assert echoed(address, port) == b"hello"
    assert close_to_others(pid)
    assert echoed("127.0.0.1", port) == b"hello"
    with pytest.raises(TimeoutError):
        echoed(address, port)


def test_where_it_cannot_be_done(server, monkeypatch):
    """The port works as before."""
    pid, port = server
    monkeypatch.setattr(loopback_only, "_PIDFD_GETFD", 100000)
    assert close_to_others(pid) and echoed("127.0.0.1", port) == b"hello"


def test_a_process_that_does_not_listen():
    assert not close_to_others(os.getppid()) or not hasattr(os, "pidfd_open")
