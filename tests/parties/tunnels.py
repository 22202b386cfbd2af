"""Three tunnels on this machine, and what stands behind them."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from mpcc.runtime.parties.agreement import part
from mpcc.runtime.parties.keys import make_identity, save_identity
from mpcc.runtime.parties.processes import free_ports
from mpcc.runtime.parties.routes import Routes, spu_routes
from mpcc.runtime.parties.tunnel import Plan, Tunnel, open_tunnel
from mpcc.runtime.parties.watchdog import Watchdog

ROLES = ("client", "provider", "helper")
PARTS = {"ir": part(b"ir"), "protocol": part(b"ring"), "options": part(b""), "mpcc": part(b"0.1.0")}


class Tunnels:
    """Plans, folders and processes of all players; as a context manager, since it ends what it started."""

    def __init__(self, folder: Path, routes: list[Routes] | None = None, roles: tuple[str, ...] = ROLES) -> None:
        self.folder, self.watchdog = folder, Watchdog(folder / "none", keep=True)
        identities = [make_identity(player) for player in range(len(roles))]
        addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(len(roles)))
        self.plans = []
        for player, role in enumerate(roles):
            (folder / role).mkdir()
            certificate, key = save_identity(folder / role, role, identities[player])
            self.plans.append(
                Plan(
                    player,
                    roles,
                    addresses,
                    tuple(i.certificate for i in identities),
                    certificate,
                    key,
                    PARTS,
                    routes[player] if routes else spu_routes(player, len(roles)),
                )
            )
        self.open: dict[int, Tunnel] = {}

    def at(self, player: int) -> Path:
        return self.folder / self.plans[player].roles[player]

    def change(self, player: int, **fields) -> None:
        self.plans[player] = replace(self.plans[player], **fields)

    def start(self, wait_seconds: float = 20.0) -> list[Tunnel | Exception]:
        """Open all tunnels at the same time; each, or why it did not open."""

        def one(player: int) -> Tunnel | Exception:
            try:
                self.open[player] = open_tunnel(self.watchdog, self.at(player), self.plans[player], wait_seconds)
                return self.open[player]
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(self.plans)) as pool:
            return list(pool.map(one, range(len(self.plans))))

    def engine(self, player: int) -> Echo:
        return Echo(self.at(player) / "engine.sock", str(player).encode())

    def connect(self, player: int, peer: int) -> socket.socket:
        """What the player's engine does to reach a peer's."""
        return connected(self.at(player) / f"to-{peer}.sock")

    def __enter__(self) -> Tunnels:
        return self

    def __exit__(self, *error: object) -> None:
        for tunnel in self.open.values():
            self.watchdog.end(tunnel.process)
        self.watchdog.__exit__(None, None, None)


def connected(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(30)
    found.connect(short(path))
    return found


def short(path: Path) -> str:
    """A Unix socket's path has room for a hundred characters: the folder goes by its descriptor."""
    folder = os.open(path.parent, os.O_PATH)
    return f"/proc/self/fd/{folder}/{path.name}"


class Echo:
    """An engine that says its name, and then what it hears."""

    def __init__(self, path: Path, name: bytes) -> None:
        self.name, self.listening = name, socket.socket(socket.AF_UNIX)
        self.listening.bind(short(path))
        self.listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.sendall(self.name)
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
