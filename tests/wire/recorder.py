"""A proxy that records both directions of every connection, and whether what it recorded is TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from dataclasses import dataclass, field

HANDSHAKE, APPLICATION = 22, 23
_TYPES = {20, 21, HANDSHAKE, APPLICATION}
_VERSIONS = {b"\x03\x01", b"\x03\x03"}  # the first record may say 1.0, all others say 1.2, also in TLS 1.3
_LONGEST = (1 << 14) + 256
_GREETING = re.compile(rb"[ -~]{0,40}P\d")


class NotTls(AssertionError):
    """Something on the wire is no TLS record."""


def records(stream: bytes) -> list[tuple[int, int]]:
    """Type and length of each record of one direction. NotTls unless there is nothing else, beginning with a hello."""
    found, at = [], 0
    while at < len(stream):
        kind, version, size = stream[at], stream[at + 1 : at + 3], int.from_bytes(stream[at + 3 : at + 5], "big")
        if at + 5 > len(stream) or at + 5 + size > len(stream):
            raise NotTls(f"the record at byte {at} of {len(stream)} is cut off")
        if kind not in _TYPES or version not in _VERSIONS or not 0 < size <= _LONGEST:
            raise NotTls(f"no record at byte {at} of {len(stream)}: {stream[at : at + 16]!r}")
        if not found and (kind != HANDSHAKE or stream[5] not in (1, 2)):
            raise NotTls("it does not begin with a hello")
        found.append((kind, size))
        at += 5 + size
    return found


def without_greeting(stream: bytes) -> bytes:
    """What follows MP-SPDZ's greeting: the name of the connection, after its length (4 bytes, little endian)."""
    size = int.from_bytes(stream[:4], "little")
    if not _GREETING.fullmatch(stream[4 : 4 + size]):
        raise NotTls(f"no greeting: {stream[:16]!r}")
    return stream[4 + size :]


@dataclass
class Recorded:
    """One connection: what who connected sent, and what came back."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Recorder:
    """A proxy for `target`, running in a thread; as a context manager. `port` is where it listens.

    A target may be given later, so that ports which are free after this one was taken can be chosen for it.
    """

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self.target, self.connections = target, list[Recorded]()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Recorder:
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self.loop
        ).result(10)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*(self.target or ("127.0.0.1", 9)))
        except OSError:
            return writer.transport.abort()
        recorded = Recorded()
        self.connections.append(recorded)
        await asyncio.gather(self._pump(reader, back, recorded.sent), self._pump(there, writer, recorded.received))
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                record += data
                writer.write(data)
                await writer.drain()
        writer.close()
