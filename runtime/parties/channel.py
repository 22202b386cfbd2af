"""Connections of a tunnel: mutual TLS 1.3 with pinned certificates outside, an engine's plain sockets inside.

A certificate is compared byte for byte (by its SHA-256) with the one agreed on, in both directions; the chain that TLS
itself checks is only the first sieve. What is read on one connection of a stream is written to the other one at once,
and reading stops while the other one cannot take more, so that nothing is lost when an engine ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpcc.runtime.parties.link import Data, Event, Frame, Link, RemoteProtocolError, Side, State
from mpcc.runtime.parties.routes import socket_path, split_address

HANDSHAKE_SECONDS = 10.0  # for TLS and the first frame together
BUFFERED_BYTES = 1 << 20  # of a stream, before reading stops
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}  # seconds, seconds, times


class WrongCertificate(Exception):
    """The other end showed a certificate that was not agreed on, or did not accept ours."""


# ** TLS **
def make_context(side: Side, certificate: Path, key: Path, known: Sequence[bytes]) -> ssl.SSLContext:
    """TLS 1.3 that shows `certificate` and takes only the `known` ones (PEM). ssl.SSLError if key or files are bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side is Side.DIALLER else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate says which player it is, not at which host
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # each known certificate is trusted for itself alone
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=b"\n".join(known).decode("ascii"))
    if side is Side.ACCEPTER:
        context.num_tickets = 0  # every connection shows its certificate
    return context


def peer_of(transport: asyncio.BaseTransport, pinned: Mapping[str, int]) -> int:
    """The player at the other end, by the SHA-256 (hexadecimal) of its certificate. WrongCertificate if it is none."""
    secured = transport.get_extra_info("ssl_object")
    shown = secured.getpeercert(binary_form=True) if secured is not None else None
    player = pinned.get(hashlib.sha256(shown).hexdigest()) if shown else None
    if player is None:
        raise WrongCertificate("a certificate that was not agreed on")
    return player


def keep_alive(connection: socket.socket) -> None:
    """Notice within about half a minute that the other host is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# ** connections **
class Piped(asyncio.Protocol):
    """One connection of a stream; what it receives goes to the connection it is joined with."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Piped | None = None
        self.gone = asyncio.Event()

    def join(self, other: Piped) -> None:
        self.other, other.other = other, self
        for one in (self, other):
            if one.gone.is_set():
                one.close_other()

    def close(self) -> None:
        """Close it when everything is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()

    def pause(self, paused: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading() if paused else self.transport.resume_reading()

    # asyncio calls these
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=BUFFERED_BYTES)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause(True)

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.pause(False)

    def connection_lost(self, error: Exception | None) -> None:
        self.gone.set()
        self.close_other()

    def close_other(self) -> None:
        if self.other is not None:
            self.other.pause(False)  # a closing connection is read to its end
            self.other.close()


class Channel(Piped):
    """A connection to another player's tunnel, which says frames before it is joined with an engine's connection."""

    def __init__(self, side: Side, own: int, pinned: Mapping[str, int]) -> None:
        super().__init__()
        self.side, self.own, self.pinned = side, own, pinned
        self.link: Link | None = None
        self.events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    @property
    def peer(self) -> int:
        assert self.link is not None
        return self.link.peer

    @property
    def state(self) -> State:
        assert self.link is not None
        return self.link.state

    def join(self, other: Piped) -> None:
        """From now on bytes are the engine's; those that came already are passed on."""
        while other.transport is not None and not self.events.empty():
            if isinstance(event := self.events.get_nowait(), Data):
                other.transport.write(event.content)
        super().join(other)

    def say(self, frame: Frame) -> None:
        """Send a frame; nothing if the connection is gone."""
        assert self.link is not None
        content = self.link.send(frame)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(content)

    async def hear(self) -> Event:
        """What the other side says next.

        Raises:
            RemoteProtocolError: it says what may not be said.
            WrongCertificate: it does not accept our certificate, or TLS failed otherwise.
        """
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        try:
            self.link = Link(self.side, self.own, peer_of(transport, self.pinned))
        except WrongCertificate as error:
            self.events.put_nowait(error)
            self.close()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
        elif data:
            self._feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, ssl.SSLError):
            self.events.put_nowait(WrongCertificate(error.reason or "TLS failed"))
        else:
            self._feed(b"")
        super().connection_lost(error)

    def _feed(self, data: bytes) -> None:
        if self.link is None:
            return
        self.link.feed(data)
        try:
            while (event := self.link.next_event()) is not None:
                self.events.put_nowait(event)
        except RemoteProtocolError as error:
            self.events.put_nowait(error)
            self.close()


# ** making them **
async def dial(address: str, context: ssl.SSLContext, channel: Channel) -> None:
    """Connect a channel to host:port; its first frame can be said then.

    Raises:
        WrongCertificate: who listens there is somebody else.
        OSError: nobody does.
    """
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(
            lambda: channel,
            host,
            port,
            ssl=context,
            server_hostname="",
            family=socket.AF_INET,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
    except ssl.SSLCertVerificationError as error:
        raise WrongCertificate(error.verify_message) from None
    except ssl.SSLError as error:
        raise ConnectionError(error.reason or "TLS failed") from None
    _begin(channel)


async def admit(connection: socket.socket, context: ssl.SSLContext, channel: Channel) -> None:
    """The same for a connection that was accepted. WrongCertificate or OSError (ssl.SSLError too) if it is nobody's."""
    await asyncio.get_running_loop().connect_accepted_socket(
        lambda: channel, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
    )
    _begin(channel)


def _begin(channel: Channel) -> None:
    if channel.link is None:
        raise WrongCertificate("it is not the one that was agreed on")
    raw = channel.transport.get_extra_info("socket") if channel.transport is not None else None
    if raw is not None:
        with contextlib.suppress(OSError):
            keep_alive(raw)


async def connect_local(address: str, end: Piped) -> None:
    """Connect to an engine at host:port or unix:path. OSError if it does not listen."""
    loop, path = asyncio.get_running_loop(), socket_path(address)
    if path is not None:
        await loop.create_unix_connection(lambda: end, str(path))
    else:
        await loop.create_connection(lambda: end, *split_address(address))


async def listen_local(address: str, make: Callable[[], Piped]) -> asyncio.AbstractServer:
    """Listen for an engine at host:port or unix:path. OSError if that cannot be."""
    loop, path = asyncio.get_running_loop(), socket_path(address)
    if path is not None:
        return await loop.create_unix_server(make, str(path))
    return await loop.create_server(make, *split_address(address))
