"""What may be on the way between two parties: a proxy that breaks as a test wants, and strangers at a port."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path

from mpcc.runtime.parties.keys import Identity, save_identity

PLAIN = {
    "eight hostile bytes": (2**63 - 1).to_bytes(8, "little"),
    "a request of a web browser": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
    "a plain-text push": b'POST /ReceiverService/Push HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"sender_rank":0}',
    "a plain-text greeting of MP-SPDZ": b"\x09\0\0\0machineP1" + bytes(64),
    "a tunnel's words without TLS": b"mpcc-link 1\n\x04\x00\x22" + bytes(34),
}


class Wire:
    """Passes bytes on to a port, until it is told otherwise.

    Attributes:
        frozen: it keeps what it gets, as a router does that forgot the connection.
        slow_seconds: how long each piece waits.
        flip: the next piece is changed in one bit.
    """

    def __init__(self, port: int) -> None:
        self.target, self.frozen, self.slow_seconds, self.flip = port, False, 0.0, False
        self.open: list[socket.socket] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection."""
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self.listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), 5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while self.frozen:
                    time.sleep(0.05)
                time.sleep(self.slow_seconds)
                if self.flip:
                    data, self.flip = data[:-1] + bytes([data[-1] ^ 1]), False
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def push(port: int, content: bytes) -> bytes:
    """What a port answers to these bytes, in plain text; b"" if nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(2)
            connection.sendall(content)
            return connection.recv(1 << 16)
    except OSError:
        return b""


def with_tls(port: int, identity: Identity, folder: Path, content: bytes) -> bytes:
    """What a port answers to these bytes inside TLS with a certificate of one's own; b"" if it hangs up."""
    certificate, key = save_identity(folder, "stranger", identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate, key)
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5)) as connection:
            connection.settimeout(2)
            connection.sendall(content)
            return connection.recv(1 << 16)
    except OSError:
        return b""
