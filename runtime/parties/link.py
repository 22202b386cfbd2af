"""What two tunnel ends say to each other, apart from sockets: bytes in, events out.

Everything here comes after TLS 1.3 with both certificates pinned, so the other side is a party, but it may be a
dishonest one. Each side first sends the preface, then frames: a kind (1 byte), the length of the content (2 bytes, big
endian), the content. Integers are unsigned.

    HELLO    from, to (a byte each: players), nonce (32), count (1), then for each part, in the order of the names:
             length of the name (1), name (ASCII), digest (32)
    CONFIRM  session (32)
    BYE      -
    OPEN     from, to, session (32)
    READY    -
    REFUSE   reason (1)

A connection is a meeting, which stays while the session lasts, or a stream of an engine, which carries the engine's
bytes as they are once it is READY. TRANSITIONS says who may say what when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from mpcc.runtime.parties.agreement import DIGEST_BYTES, MOST_PARTS, NONCE_BYTES, Parts, check_parts

PREFACE = b"mpcc-link 1\n"
HEADER_BYTES = 3
_FIXED = 2 + NONCE_BYTES + 1
_LONGEST_PART = 1 + 32 + DIGEST_BYTES


class LinkError(Exception):
    """Something that does not belong here was said."""


class LocalProtocolError(LinkError):
    """This side was about to say it: a bug."""


class RemoteProtocolError(LinkError):
    """The other side said it."""


class Side(Enum):
    DIALLER = "dialler"
    ACCEPTER = "accepter"

    @property
    def other(self) -> Side:
        return Side.ACCEPTER if self is Side.DIALLER else Side.DIALLER


class Kind(IntEnum):
    HELLO = 1
    CONFIRM = 2
    BYE = 3
    OPEN = 4
    READY = 5
    REFUSE = 6


# (least, most) bytes of a frame's content
SIZES: Mapping[Kind, tuple[int, int]] = {
    Kind.HELLO: (_FIXED, _FIXED + MOST_PARTS * _LONGEST_PART),
    Kind.CONFIRM: (DIGEST_BYTES, DIGEST_BYTES),
    Kind.BYE: (0, 0),
    Kind.OPEN: (2 + DIGEST_BYTES, 2 + DIGEST_BYTES),
    Kind.READY: (0, 0),
    Kind.REFUSE: (1, 1),
}


class Reason(IntEnum):
    """Why a side ends a conversation."""

    PROGRAM = 1  # it has another program
    SESSION = 2  # it takes part in another session
    BUSY = 3  # too many streams
    ENGINE = 4  # its engine does not answer


class State(Enum):
    NEW = "new"
    HELLO_SENT = "the dialler has greeted"
    GREETED = "both have greeted"
    DIALLER_CONFIRMED = "the dialler has confirmed"
    ACCEPTER_CONFIRMED = "the accepter has confirmed"
    MET = "both have confirmed"
    ASKED = "a stream is asked for"
    STREAMING = "a stream"
    CLOSED = "closed"


_D, _A = Side.DIALLER, Side.ACCEPTER
TRANSITIONS: Mapping[State, Mapping[tuple[Side, Kind], State]] = {
    State.NEW: {(_D, Kind.HELLO): State.HELLO_SENT, (_D, Kind.OPEN): State.ASKED},
    State.HELLO_SENT: {(_A, Kind.HELLO): State.GREETED, (_A, Kind.REFUSE): State.CLOSED},
    State.GREETED: {
        (_D, Kind.CONFIRM): State.DIALLER_CONFIRMED,
        (_A, Kind.CONFIRM): State.ACCEPTER_CONFIRMED,
        (_D, Kind.REFUSE): State.CLOSED,
        (_A, Kind.REFUSE): State.CLOSED,
    },
    State.DIALLER_CONFIRMED: {
        (_A, Kind.CONFIRM): State.MET,
        (_A, Kind.REFUSE): State.CLOSED,
        (_D, Kind.REFUSE): State.CLOSED,
    },
    State.ACCEPTER_CONFIRMED: {
        (_D, Kind.CONFIRM): State.MET,
        (_D, Kind.REFUSE): State.CLOSED,
        (_A, Kind.REFUSE): State.CLOSED,
    },
    State.MET: {(_D, Kind.BYE): State.CLOSED, (_A, Kind.BYE): State.CLOSED},
    State.ASKED: {(_A, Kind.READY): State.STREAMING, (_A, Kind.REFUSE): State.CLOSED},
    State.STREAMING: {},
    State.CLOSED: {},
}


# ** events **
@dataclass(frozen=True)
class Hello:
    nonce: bytes
    parts: Parts


@dataclass(frozen=True)
class Confirm:
    session: bytes


@dataclass(frozen=True)
class Bye:
    pass


@dataclass(frozen=True)
class Open:
    session: bytes


@dataclass(frozen=True)
class Ready:
    pass


@dataclass(frozen=True)
class Refuse:
    reason: Reason


@dataclass(frozen=True)
class Data:
    """Bytes of an engine."""

    content: bytes


@dataclass(frozen=True)
class Ended:
    """The other side sends nothing more; `orderly` if it had said so, or was in a stream."""

    orderly: bool


Frame = Hello | Confirm | Bye | Open | Ready | Refuse
Event = Frame | Data | Ended
_KINDS: Mapping[type, Kind] = {
    Hello: Kind.HELLO,
    Confirm: Kind.CONFIRM,
    Bye: Kind.BYE,
    Open: Kind.OPEN,
    Ready: Kind.READY,
    Refuse: Kind.REFUSE,
}


class Link:
    """One connection between two players, whose certificates have been compared."""

    def __init__(self, side: Side, own: int, peer: int) -> None:
        self.side, self.own, self.peer = side, own, peer
        self.state = State.NEW
        self._buffer = b""
        self._greeting = True  # the other side's preface is still to come
        self._spoken = self._over = False

    def send(self, frame: Frame) -> bytes:
        """The bytes to send for a frame. LocalProtocolError if it is not this side's turn to say it."""
        kind = _KINDS[type(frame)]
        content = _encoded(frame, self.own, self.peer)
        least, most = SIZES[kind]
        if not least <= len(content) <= most:
            raise LocalProtocolError(f"{kind.name} of {len(content)} bytes")
        self._move(self.side, kind, LocalProtocolError)
        preface = b"" if self._spoken else PREFACE
        self._spoken = True
        return preface + bytes([kind]) + len(content).to_bytes(2, "big") + content

    def feed(self, data: bytes) -> None:
        """Bytes that came from the other side; b"" says that no more will come."""
        self._buffer += data
        self._over = self._over or not data

    def next_event(self) -> Event | None:
        """What comes next in the bytes; None if more are needed. After the end of the conversation all is ignored.

        Raises:
            RemoteProtocolError: they say nothing that may be said now. The link is closed then.
        """
        try:
            return self._next()
        except RemoteProtocolError:
            self._close()
            raise

    def _next(self) -> Event | None:
        if self.state is State.CLOSED:
            self._buffer = b""
        elif self._buffer and self._greeting:
            if self._take_preface():
                return self._next()
        elif self._buffer and self.state is State.STREAMING:
            content, self._buffer = self._buffer, b""
            return Data(content)
        elif self._buffer and (frame := self._take_frame()) is not None:
            return frame
        return self._end() if self._over else None

    def _end(self) -> Ended:
        self._over = False  # it is said once
        if self._buffer:
            raise RemoteProtocolError("the connection ended in the middle of a frame")
        orderly = self.state in (State.CLOSED, State.STREAMING)
        self._close()
        return Ended(orderly)

    def _take_preface(self) -> bool:
        if not PREFACE.startswith(self._buffer[: len(PREFACE)]):
            raise RemoteProtocolError("this is no tunnel of this version of mpcc")
        if len(self._buffer) < len(PREFACE):
            return False
        self._buffer, self._greeting = self._buffer[len(PREFACE) :], False
        return True

    def _take_frame(self) -> Frame | None:
        """The next frame, as soon as it is complete; what is wrong with it is said as soon as it can be seen."""
        try:
            kind = Kind(self._buffer[0])
        except ValueError:
            raise RemoteProtocolError(f"a frame of the unknown kind {self._buffer[0]}") from None
        if (self.side.other, kind) not in TRANSITIONS[self.state]:
            raise RemoteProtocolError(f"{kind.name}, while the state is: {self.state.value}")
        if len(self._buffer) < HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
        least, most = SIZES[kind]
        if not least <= size <= most:
            raise RemoteProtocolError(f"{kind.name} of {size} bytes")
        if len(self._buffer) < HEADER_BYTES + size:
            return None
        content, self._buffer = self._buffer[HEADER_BYTES : HEADER_BYTES + size], self._buffer[HEADER_BYTES + size :]
        frame = _decoded(kind, content, sender=self.peer, receiver=self.own)
        self._move(self.side.other, kind, RemoteProtocolError)
        return frame

    def _move(self, who: Side, kind: Kind, error: type[LinkError]) -> None:
        if (who, kind) not in TRANSITIONS[self.state]:
            raise error(f"{kind.name}, while the state is: {self.state.value}")
        self.state = TRANSITIONS[self.state][who, kind]

    def _close(self) -> None:
        self.state, self._buffer = State.CLOSED, b""


# ** frames as bytes **
def _encoded(frame: Frame, sender: int, receiver: int) -> bytes:
    match frame:
        case Hello(nonce, parts):
            entries = b"".join(
                bytes([len(name)]) + name.encode("ascii") + bytes.fromhex(parts[name]) for name in sorted(parts)
            )
            return bytes([sender, receiver]) + nonce + bytes([len(parts)]) + entries
        case Confirm(session):
            return session
        case Open(session):
            return bytes([sender, receiver]) + session
        case Refuse(reason):
            return bytes([reason])
        case Bye() | Ready():
            return b""


def _decoded(kind: Kind, content: bytes, *, sender: int, receiver: int) -> Frame:
    """The frame in some content of a length that its kind allows. RemoteProtocolError if it is malformed."""
    match kind:
        case Kind.HELLO:
            _check_players(content, sender, receiver)
            return Hello(content[2 : 2 + NONCE_BYTES], _parts(content[2 + NONCE_BYTES :]))
        case Kind.CONFIRM:
            return Confirm(content)
        case Kind.OPEN:
            _check_players(content, sender, receiver)
            return Open(content[2:])
        case Kind.REFUSE:
            try:
                return Refuse(Reason(content[0]))
            except ValueError:
                raise RemoteProtocolError(f"REFUSE with the unknown reason {content[0]}") from None
        case Kind.BYE:
            return Bye()
        case Kind.READY:
            return Ready()


def _check_players(content: bytes, sender: int, receiver: int) -> None:
    if tuple(content[:2]) != (sender, receiver):
        raise RemoteProtocolError(
            f"from player {content[0]} to {content[1]}, on the link from player {sender} to {receiver}"
        )


def _parts(content: bytes) -> Parts:
    """The named parts; each name once, in order."""
    count, at, found = content[0], 1, dict[str, str]()
    for _ in range(count):
        size = content[at] if at < len(content) else 0
        entry = content[at + 1 : at + 1 + size + DIGEST_BYTES]
        if not size or len(entry) != size + DIGEST_BYTES:
            raise RemoteProtocolError("HELLO ends too early")
        name = entry[:size].decode("latin-1")
        if found and name <= max(found):
            raise RemoteProtocolError("HELLO names its parts in another order")
        found[name] = entry[size:].hex()
        at += 1 + len(entry)
    if at != len(content):
        raise RemoteProtocolError("HELLO holds more than its parts")
    try:
        check_parts(found)
    except ValueError as error:
        raise RemoteProtocolError(f"HELLO: {error}") from None
    return found
