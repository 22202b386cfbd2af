"""A tiny program, split among three folders, each with its own key; and running `mpcc party` there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import child

from mpcc.program import Program
from mpcc.runtime.parties.keys import fingerprint, make_identity, save_identity
from mpcc.runtime.parties.processes import free_ports
from mpcc.split import split_program
from tests.bundle import tiny_programs as tiny

ROLES = ("client", "provider", "helper")
LIMIT = 120.0  # seconds in which a fault has to be noticed
START = 120.0  # and in which processes that import torch come up on a busy machine


class Deployed:
    """Folders client/, provider/ and helper/, each with its part, its key, all certificates and hosts.toml."""

    def __init__(self, folder: Path, program: Program, roles: Sequence[str] = ROLES) -> None:
        self.folder, self.running, self.roles = folder, {}, tuple(roles)
        program.save(folder / "prog.mpc")
        split_program(folder / "prog.mpc", folder / "parts", roles)
        for role in roles:
            (self.at(role) / "tmp").mkdir()
        self.identities = {role: make_identity(player) for player, role in enumerate(roles)}
        self.give_keys()
        blocked = folder / "no_torch"
        blocked.mkdir()
        for name in ("torch", "transformers"):
            (blocked / f"{name}.py").write_text("raise ImportError('this role has no torch')\n")

    def at(self, role: str) -> Path:
        return self.folder / "parts" / role

    def give_keys(self) -> None:
        """Each role's own key, everybody's certificate, and the same hosts.toml, with fresh ports."""
        self.ports = dict(zip(self.roles, free_ports(len(self.roles)), strict=True))
        for role in self.roles:
            folder = self.at(role) / "keys"
            shutil.rmtree(folder, ignore_errors=True)
            save_identity(folder, role, self.identities[role])
            for other in self.roles:
                (folder / f"{other}.pem").write_bytes(self.identities[other].certificate)
            (folder / "hosts.toml").write_text("".join(self.entry(other) for other in self.roles))

    def entry(self, role: str, mark: str = "") -> str:
        mark = mark or fingerprint(self.identities[role].certificate)
        return (
            f'[{role}]\nhost = "127.0.0.1"\nport = {self.ports[role]}\ncertificate = "{role}.pem"\n'
            f'fingerprint = "{mark}"\n\n'
        )

    def start(self, role: str, *options: str, **environment: str) -> subprocess.Popen:
        """`mpcc party` in the role's folder, where provider and helper cannot import torch."""
        command = [sys.executable, "-m", "mpcc", "party", "prog.mpc", "--role", role, "--hosts", "keys/hosts.toml"]
        if "--wait" not in options:
            command += ["--wait", str(START)]
        env = {**os.environ, "TMPDIR": str(self.at(role) / "tmp"), **environment}
        env.pop("MPCC_KEEP_WORK", None) if "MPCC_KEEP_WORK" not in environment else None
        if role != "client":
            env["PYTHONPATH"] = str(self.folder / "no_torch")
        self.running[role] = child.start(
            [*command, *options],
            cwd=self.at(role),
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return self.running[role]

    def finish(self, *roles: str, notes: bool = False) -> dict[str, tuple[int, str, str]]:
        """Exit code, stdout and stderr (notes are left out unless asked for) of each role that was started."""
        found = {}
        for role in roles or list(self.running):
            process = self.running.pop(role)
            try:
                out, err = process.communicate(timeout=START + LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            found[role] = (process.returncode, out, err if notes else without_notes(err))
        return found

    def run(self, *options: str, client: tuple[str, ...] = (), **environment: str) -> dict[str, tuple[int, str, str]]:
        """All roles with the same options."""
        for role in ROLES:
            self.start(role, *options, *(client if role == "client" else ()), **environment)
        return self.finish()

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.communicate()
        self.running.clear()


def without_notes(err: str) -> str:
    """What a command says on stderr besides notes: those tell what a role takes part in."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("mpcc: note: "))


def program() -> Program:
    return tiny.private_program()
