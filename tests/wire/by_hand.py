"""The parties of one small program on MP-SPDZ, each with keys and addresses of its own choosing."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import primitives
from one_request import Job
from ring_cases import for_protocol, make, run_emulator

from mpcc.runtime.mp_spdz.build import compile_source, environment, party_command
from mpcc.runtime.mp_spdz.home import find_home, party_binary, setup_of
from mpcc.runtime.parties.keys import Identity, install, make_identity, write_private
from mpcc.runtime.parties.watchdog import Watchdog

CASE = make(primitives.PROGRAMS["products"])


def job_of(protocol: str) -> Job:
    return replace(for_protocol(CASE, protocol).job, protocol=protocol)


class ByHand:
    """Folders and processes of all players; as a context manager, since it ends what it started."""

    def __init__(self, folder: Path, protocol: str) -> None:
        self.job, self.folder, self.protocol = job_of(protocol), folder, protocol
        self.roles = setup_of(protocol).roles
        self.identities = [make_identity(player) for player in range(len(self.roles))]
        self.certificates = {i.name: i.certificate for i in self.identities}
        self.binary = party_binary(find_home(), protocol)
        (folder / "work").mkdir()
        self.watchdog = Watchdog(folder / "work", keep=False)
        compile_source(self.job.source, protocol, find_home(), folder / "program", self.watchdog)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self,
        player: int,
        hosts: Sequence[str],
        identity: Identity | None = None,
        certificates: Mapping[str, bytes] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        """Start a player, by default with its own key, that takes `hosts` for everybody's addresses."""
        role, place = self.roles[player], self.folder / f"player{player}"
        data = place / "Player-Data"
        data.mkdir(parents=True)
        (place / "Programs").symlink_to(self.folder / "program" / "Programs")
        (place / "hosts").write_text("".join(f"{host}\n" for host in hosts))
        install(data, identity or self.identities[player], dict(certificates or self.certificates))
        own = {"client": self.job.client_stream, "provider": self.job.provider_stream}.get(role, np.zeros(0, np.int64))
        stream = np.concatenate([self.job.public_stream, own])
        write_private(data / f"Input-Binary-P{player}-0", stream.astype("<i8").tobytes())
        self.processes[player] = self.watchdog.start(
            [word for word in party_command(self.binary, player) if word not in without],
            cwd=place,
            env=environment(),
            stdout=place / "stdout",
            stderr=place / "stderr",
        )

    def codes(self, seconds: float = 60.0) -> list[int]:
        """Exit codes of all players."""
        return [self.processes[player].wait(seconds) for player in sorted(self.processes)]

    def said(self, player: int) -> str:
        place = self.folder / f"player{player}"
        return (place / "stdout").read_text() + (place / "stderr").read_text()

    def right(self) -> bool:
        """Whether the client has the emulator's numbers."""
        content = (self.folder / "player0" / "Player-Data" / "Binary-Output-P0-0").read_bytes()
        wanted = np.concatenate([run_emulator(CASE)[name] for name, _ in self.job.outputs])
        return bool(np.array_equal(np.frombuffer(content, "<i8"), wanted))

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            self.watchdog.end(process)
        self.watchdog.__exit__(None, None, None)
