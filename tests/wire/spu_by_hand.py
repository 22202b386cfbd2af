"""The parties of one small program on SPU, in the folders of their tunnels."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from spu_jobs import LIMITS, small_job
from tunnels import ROLES, Tunnels

from mpcc.runtime.parties.requests import Answers, Feeder
from mpcc.runtime.parties.site import local_site
from mpcc.runtime.parties.tunnel import Tunnel
from mpcc.runtime.parties.watchdog import Watchdog
from mpcc.runtime.spu.folders import compile_program, environment, join_session, prepare, request_of, values_of


class SpuByHand:
    """Folders and processes of all parties; as a context manager, since it ends what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job, self.wanted = small_job()
        (folder / "tunnels").mkdir()
        self.watchdog = Watchdog(folder / "none", keep=True)
        compile_program(self.job.program, folder / "program", self.watchdog)
        weights = values_of(self.job.program, "provider", self.job.provider)
        self.parties = prepare(
            self.job.program, "aby3", self.job.public, weights, local_site(ROLES), LIMITS, self.folder
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def stand_in(self, tunnels: Tunnels) -> None:
        """The tunnels run in the parties' folders, so that both find the sockets there."""
        tunnels.at = lambda player: self.folder / ROLES[player]

    def start(self, opened: Sequence[Tunnel]) -> None:
        client = self.parties[0].folder
        self.answers = Answers(client / "answers.bin", (("y", self.wanted.size),), lambda number, answer: None)
        requests = [request_of(self.job.program, self.job.client)]
        self.feeder = Feeder(client / "requests", np.zeros(0, np.int64), requests, requests[0].size)
        for party, tunnel in zip(self.parties, opened, strict=True):
            (party.folder / "hosts").write_text("\n".join(tunnel.routes.hosts))
            join_session(party, tunnel.session)
            self.processes.append(
                self.watchdog.start(
                    party.command, cwd=party.folder, env=environment(), stdout=party.stdout, stderr=party.stderr
                )
            )

    def listening(self) -> list[object]:
        """TCP ports at which a party listens while the session lasts."""
        found: list[object] = []
        while any(process.poll() is None for process in self.processes):
            for process in self.processes:
                try:
                    ports = psutil.Process(process.pid).net_connections("tcp")
                except psutil.Error:
                    continue
                found += [c.laddr for c in ports if c.status == psutil.CONN_LISTEN]
        return found

    def codes(self) -> list[int]:
        return [process.wait(60) for process in self.processes]

    def right(self) -> bool:
        self.answers.collect()
        (answer,) = self.answers.done
        return bool(np.abs(answer["y"].view(np.float64) - self.wanted.ravel()).max() < 5e-3)

    def __enter__(self) -> SpuByHand:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            self.watchdog.end(process)
        if self.processes:
            self.feeder.close()
        self.watchdog.__exit__(None, None, None)
