"""A party's tunnel as the runtime sees it: a process beside the engine's, started and ended with it.

    tunnel = open_tunnel(watchdog, folder, plan, wait_seconds)   all parties are there, with one program and one session
    ...run the engine, which is told tunnel.routes.hosts and tunnel.session; call tunnel.check() while it runs...
    tunnel.close()                                               the engine has ended well

Without close() the others take this party for lost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.agreement import Parts, check_parts
from mpcc.runtime.parties.keys import fingerprint
from mpcc.runtime.parties.routes import Routes, split_address
from mpcc.runtime.parties.tunnel_process import LEAVE_SECONDS, Settings
from mpcc.runtime.parties.watchdog import Watchdog

_LOOPBACK = ("127.", "localhost")
_EVERYWHERE = "0.0.0.0"
_SLOWER = 10.0  # seconds beyond its own limits in which the process itself has to answer
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Plan:
    """Who takes part in a session, as one player knows it; tuples are by player.

    `addresses` are the public ones (host:port), `certificates` PEM; `certificate` and `key` are files of this player's
    own, which are read where they stand. `parts` name the digests that all players must have in common.
    """

    player: int
    roles: tuple[str, ...]
    addresses: tuple[str, ...]
    certificates: tuple[bytes, ...]
    certificate: Path
    key: Path
    parts: Parts
    routes: Routes


class Tunnel:
    """A tunnel whose session stands; `session` is its number, 64 hexadecimal digits that no other session has."""

    def __init__(
        self, process: subprocess.Popen[bytes], watchdog: Watchdog, said: Path, plan: Plan, session: str
    ) -> None:
        self.process, self.watchdog, self.plan, self.session = process, watchdog, plan, session
        self._said = said

    @property
    def routes(self) -> Routes:
        return self.plan.routes

    def check(self) -> None:
        """EngineError if a player is lost, or this tunnel itself has ended."""
        for event in events(self._said):
            if event["event"] == "lost":
                role = self.plan.roles[event["player"]]
                raise EngineError(
                    f"the {role} has closed its connection",
                    where=self.plan.addresses[event["player"]],
                    todo="see what the other parties say",
                )
        if self.process.poll() is not None:
            raise EngineError("the tunnel to the other parties has ended", where=self._said.name)

    def close(self) -> None:
        """Send what is on its way, say farewell, and end the process."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(LEAVE_SECONDS + _SLOWER)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.watchdog.end(self.process)


def open_tunnel(watchdog: Watchdog, folder: Path, plan: Plan, wait_seconds: float) -> Tunnel:
    """Start a tunnel in `folder` (unix: addresses are relative to it) and wait until all players have agreed.

    Raises:
        EngineError: a player does not come in time, shows another certificate, or has another program, and which part
            of it differs; the port is taken.
    """
    check_parts(plan.parts)
    settings, said = folder / "tunnel.json", folder / "tunnel.out"
    settings.write_text(json.dumps(asdict(settings_of(plan, wait_seconds))), "utf-8")
    process = watchdog.start(
        [sys.executable, "-I", "-m", "mpcc.runtime.parties.tunnel_process", settings.name],
        cwd=folder,
        env=_environment(),
        stdout=said,
        stderr=folder / "tunnel.err",
    )
    try:
        return Tunnel(process, watchdog, said, plan, _session(process, said, wait_seconds + _SLOWER))
    except BaseException:
        watchdog.end(process)
        raise


def settings_of(plan: Plan, wait_seconds: float) -> Settings:
    """What the process is told. It listens at every interface unless its address is one of the loopback."""
    host = split_address(plan.addresses[plan.player])[0]
    return Settings(
        player=plan.player,
        roles=plan.roles,
        addresses=plan.addresses,
        listen="127.0.0.1" if host.startswith(_LOOPBACK) else _EVERYWHERE,
        certificates=tuple(c.decode("ascii") for c in plan.certificates),
        fingerprints=tuple(fingerprint(c).removeprefix("sha256:") for c in plan.certificates),
        certificate=str(plan.certificate.resolve()),
        key=str(plan.key.resolve()),
        parts=dict(plan.parts),
        engine=plan.routes.engine,
        ends=dict(plan.routes.ends),
        wait_seconds=wait_seconds,
    )


def events(said: Path) -> list[dict[str, Any]]:
    """The complete lines that the process has said so far."""
    complete = said.read_bytes().rpartition(b"\n")[0].splitlines() if said.exists() else []
    return [json.loads(line) for line in complete]


def _environment() -> dict[str, str]:
    passed = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1"}


def _session(process: subprocess.Popen[bytes], said: Path, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        for event in events(said):
            if event["event"] == "agreed":
                return str(event["session"])
            if event["event"] == "failed":
                raise EngineError(str(event["text"]), where=str(event["where"]), todo=str(event["todo"]))
        if ended:
            break
        time.sleep(0.02)
    raise EngineError("the tunnel to the other parties did not start", where=said.with_suffix(".err").name)
