"""Which addresses an engine is told when mpcc's tunnel stands between it and the other parties.

    engine -> local end for the peer -> tunnel ==TLS==> the peer's tunnel -> the peer's engine

MP-SPDZ listens at one TCP port, connects to the players before it and to itself, and is given everybody's address in a
file. SPU listens at one address and connects to all others; its addresses can be Unix sockets, which nobody but the
owner of their folder can reach, so that it has no port at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
UNIX = "unix:"
_ENGINE = "engine.sock"
_NOWHERE = f"{LOOPBACK}:9"  # for peers that connect to this engine, never the other way round


@dataclass(frozen=True)
class Routes:
    """The addresses of one party, each host:port on the loopback or unix:path.

    `engine` is where its engine listens, `ends` where its tunnel listens for the engine's connections to a peer, and
    `hosts` what the engine is told about all players, itself included.
    """

    engine: str
    ends: Mapping[int, str]
    hosts: tuple[str, ...]


def ports_needed(player: int) -> int:
    """How many free TCP ports on the loopback `mp_spdz_routes` needs."""
    return player + 1


def mp_spdz_routes(player: int, players: int, ports: Sequence[int]) -> Routes:
    """The routes of an MP-SPDZ party; the first port is the engine's own."""
    own, *others = (f"{LOOPBACK}:{port}" for port in ports[: ports_needed(player)])
    ends = dict(enumerate(others))
    return Routes(own, ends, tuple({**ends, player: own}.get(p, _NOWHERE) for p in range(players)))


def spu_routes(player: int, players: int) -> Routes:
    """The routes of an SPU party: sockets in the folder in which both engine and tunnel run.

    They are relative paths, since the path of a Unix socket has room for about a hundred characters.
    """
    own = f"{UNIX}{_ENGINE}"
    ends = {peer: f"{UNIX}to-{peer}.sock" for peer in range(players) if peer != player}
    return Routes(own, ends, tuple({**ends, player: own}[p] for p in range(players)))


def spu_hosts(roles: Sequence[str]) -> tuple[str, ...]:
    """Everybody's address where all parties are on this machine, each in the folder of its role beside the others'."""
    return tuple(f"{UNIX}../{role}/{_ENGINE}" for role in roles)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port. ValueError for others."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def socket_path(address: str) -> Path | None:
    """The path of a unix: address, None for others."""
    return Path(address[len(UNIX) :]) if address.startswith(UNIX) else None
