"""Noticing that a party on another host is gone: SPU itself would wait for it until its time-out."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.processes import Party
from mpcc.runtime.spu.party import CONNECTED

STEP, GRACE = 1.0, 3.0  # seconds between two looks, and without a connection until it counts
_ESTABLISHED = "01"
_SOCKET = "socket:["
Address = tuple[str, int]


class PeerWatch:
    """Looks whether a party still has its connection to every other one."""

    def __init__(self, parties: Sequence[Party], addresses: Sequence[str], roles: Sequence[str]) -> None:
        """`addresses` (host:port) and `roles` are those of all players; `parties` run here."""
        own = {party.player for party in parties}
        self.parties, self.roles = parties, roles
        self.peers = {player: _resolved(a) for player, a in enumerate(addresses) if player not in own}
        self.seen: dict[tuple[int, int], float] = {}  # (own player, peer) -> when it was last connected
        self.looked = 0.0

    def check(self) -> None:
        """EngineError if a party that was connected to all others has lost one for GRACE seconds."""
        now = time.monotonic()
        if now - self.looked < STEP:
            return
        self.looked = now
        for party in self.parties:
            if not _running(party):
                continue
            connected = remote_ends(party.process.pid) if party.process is not None else None
            if connected is None:
                continue
            for player, addresses in self.peers.items():
                pair = (party.player, player)
                if addresses & connected:
                    self.seen[pair] = now
                elif pair in self.seen and now - self.seen[pair] > GRACE:
                    raise EngineError(
                        f"the {party.role} failed: the {self.roles[player]} has closed its connection",
                        where=f"party {party.player}",
                        todo="see what the other parties say",
                    )


def _running(party: Party) -> bool:
    """Whether the party is in the middle of its session."""
    if party.process is None or party.process.poll() is not None or (party.folder / "ended").exists():
        return False
    with party.stdout.open("rb") as file:
        return CONNECTED.encode() in file.read(1 << 16)


def _resolved(address: str) -> frozenset[Address]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        raise EngineError("a host of the file of hosts has no address", where=host) from None
    return frozenset((str(entry[4][0]), int(port)) for entry in found)


def remote_ends(pid: int) -> set[Address] | None:
    """Address and port at the other end of a process's connections; None where the system does not tell."""
    try:
        own = _sockets(pid)
        lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]]
    except OSError:
        return None
    return {_address(fields[2]) for fields in lines if fields[3] == _ESTABLISHED and fields[9] in own}


def _address(text: str) -> Address:
    """From the form of /proc/net/tcp: the address as a native 32-bit word and the port, in hexadecimal."""
    word, _, port = text.partition(":")
    return socket.inet_ntoa(int(word, 16).to_bytes(4, sys.byteorder)), int(port, 16)


def _sockets(pid: int) -> set[str]:
    """Inodes of the sockets that the process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith(_SOCKET):
                found.add(target[len(_SOCKET) : -1])
    return found
