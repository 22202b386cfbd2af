"""What all parties have to agree on before anything is shared: one digest of the program, and one session.

The program is told as named parts (the IR, the protocol, the options, mpcc's version), each by its SHA-256, so that a
difference has a name. The session is a hash of a random number of every party: a message of another session fits
nowhere, whoever else is dishonest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

Parts = Mapping[str, str]  # name -> SHA-256 in hexadecimal

MOST_PARTS = 16
NONCE_BYTES = DIGEST_BYTES = 32
_NAME = re.compile(r"[a-z][a-z0-9 _-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def part(content: bytes) -> str:
    """The digest of one part."""
    return hashlib.sha256(content).hexdigest()


def check_parts(parts: Parts) -> None:
    """ValueError unless there are 1 to 16 parts with short plain names and SHA-256 digests."""
    if not 1 <= len(parts) <= MOST_PARTS:
        raise ValueError(f"{len(parts)} parts")
    for name, digest in parts.items():
        if not _NAME.fullmatch(name):
            raise ValueError("a part has no plain name")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{name} has no digest")


def digest_of(parts: Parts) -> str:
    """The one digest of all parts, in hexadecimal: what people compare."""
    check_parts(parts)
    return part("".join(f"{name}\0{parts[name]}\n" for name in sorted(parts)).encode("ascii"))


def differing(own: Parts, other: Parts) -> tuple[str, ...]:
    """The names of the parts that differ, or that one side does not have."""
    return tuple(name for name in sorted({*own, *other}) if own.get(name) != other.get(name))


def session_of(nonces: Sequence[bytes], parts: Parts) -> bytes:
    """The session's 32 bytes, from the random numbers of all players in their order."""
    if any(len(nonce) != NONCE_BYTES for nonce in nonces):
        raise ValueError("a random number has the wrong length")
    return hashlib.sha256(b"mpcc session 1\n" + bytes.fromhex(digest_of(parts)) + b"".join(nonces)).digest()


class Disagreement(Exception):
    """A player has another program, or takes part in another session; `names` are the parts that differ."""

    def __init__(self, player: int, names: tuple[str, ...]) -> None:
        super().__init__(player, names)
        self.player, self.names = player, names


class Meeting:
    """What one player knows of the others, until all have the same program and the same session."""

    def __init__(self, own: int, players: int, parts: Parts, nonce: bytes) -> None:
        """`nonce` is 32 random bytes, new for each meeting."""
        check_parts(parts)
        self.own, self.players, self.parts = own, players, dict(parts)
        self.nonces = {own: nonce}
        self.confirmed: dict[int, bytes] = {}

    @property
    def missing(self) -> tuple[int, ...]:
        """The players that have not greeted yet."""
        return tuple(player for player in range(self.players) if player not in self.nonces)

    @property
    def session(self) -> bytes | None:
        """The session, as soon as everybody's random number is there."""
        if self.missing:
            return None
        return session_of([self.nonces[player] for player in range(self.players)], self.parts)

    @property
    def agreed(self) -> bool:
        """Whether every other player has confirmed the session."""
        return not self.missing and len(self.confirmed) == self.players - 1

    def greet(self, player: int, nonce: bytes, parts: Parts) -> None:
        """A player has said what it runs; again, if it had to connect anew.

        Raises:
            Disagreement: it runs something else, or comes back when the session stands.
        """
        if names := differing(self.parts, parts):
            raise Disagreement(player, names)
        if not self.missing and self.nonces[player] != nonce:
            raise Disagreement(player, ("session",))
        self.nonces[player] = nonce
        self.confirmed.pop(player, None)
        self._compare()

    def confirm(self, player: int, session: bytes) -> None:
        """A player has said which session it takes part in. Disagreement if it is another one."""
        self.confirmed[player] = session
        self._compare()

    def _compare(self) -> None:
        own = self.session
        for player, session in self.confirmed.items():
            if own is not None and session != own:
                raise Disagreement(player, ("session",))
