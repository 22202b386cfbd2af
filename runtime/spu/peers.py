"""Noticing that a party on another host is gone: SPU itself would wait for it until its time-out."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.connections import Address, remote_ends
from mpcc.runtime.parties.processes import Party
from mpcc.runtime.spu.party import CONNECTED

STEP, GRACE = 1.0, 3.0  # seconds between two looks, and without a connection until it counts


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
