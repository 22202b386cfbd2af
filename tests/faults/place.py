"""Where faults happen: the parties' folders of one protocol, and what must be true of them afterwards."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import torch
from deployed import Deployed
from fake_home import make_home, processes_below, soon

import mpcc
from mpcc.program import Program
from mpcc.runtime.engines import engine_named
from tests.bundle import tiny_programs as tiny
from tests.faults.commands import Command, Ended

SAMPLES = [{"input_ids": tiny.sample(seed=seed)["input_ids"].tolist()} for seed in (1, 2)]
SPU, STAND_IN = "spu", "stand-in"  # engines; all others are protocols of a real MP-SPDZ
_ANSWERS = "session(stored=11, numbers=4, answer=2)"
KINDS = {
    "engine": ("-party.x", "spu/party.py"),
    "tunnel": ("tunnel_process",),
    "watchdog": ("guard.py",),
    "compiler": ("compile.py",),
}
HERE = "here"  # who runs all parties on one machine
_ENV = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@functools.cache
def program(protocol: str, seed: int = 0) -> Program:
    """The smallest program of a protocol of MP-SPDZ; another seed gives other numbers, and another program."""
    torch.manual_seed(seed)
    rules = mpcc.Partition.from_rules({"public": ["table.*"]})
    example = {"input_ids": torch.tensor(SAMPLES[0]["input_ids"])}
    return mpcc.compile(tiny.Bag().eval(), example, rules, calibrate_random=4, protocol=protocol, frac_bits=12 + seed)


class Place(Deployed):
    """The parties of one protocol (of "spu": SPU's own), provisioned where shares can be stored."""

    def __init__(self, folder: Path, protocol: str) -> None:
        self.protocol, self.spu = protocol, protocol == SPU
        self.stand_in = protocol == STAND_IN
        self.program = program("ring" if self.spu or self.stand_in else protocol)
        super().__init__(folder, self.program, engine_named("mp-spdz").roles(self.program.protocol))
        (folder / HERE / "tmp").mkdir(parents=True)
        for at in (self.at("client"), self.at(HERE)):
            (at / "in.json").write_text(json.dumps(SAMPLES))
        self.commands: dict[str, Command] = {}
        self.stored: tuple[str, ...] = ()
        self.home = make_home(folder / "home", _ANSWERS) if self.stand_in else Path(os.environ.get("MP_SPDZ_HOME", ""))
        self.marks = _marks(self.program)
        self.backup = folder / "backup"
        self.remember()

    def at(self, role: str) -> Path:
        return self.folder / HERE if role == HERE else self.folder / "parts" / role

    def store(self) -> None:
        """Share the weights; from now on every session uses the stored shares."""
        done = self.all("--provision", "--state", "state", client=())
        assert all(e.code == 0 for e in done.values()), done
        self.stored = ("--state", "state")
        self.remember()

    # ** starting and ending **
    def command(self, who: str, *arguments: str, env: Mapping[str, str | None] | None = None, **options) -> Command:
        """`mpcc ARGUMENTS` in a role's folder; `env` changes its environment."""
        found: dict[str, str | None] = {name: os.environ.get(name) for name in _ENV}
        found |= {"TMPDIR": str(self.at(who) / "tmp"), "MP_SPDZ_HOME": str(self.home)} | dict(env or {})
        given = {name: value for name, value in found.items() if value is not None}
        command = Command(arguments, self.at(who), self.folder / "said" / who, given, **options)
        self.commands[who] = command
        return command

    def party(self, role: str, *options: str, wait: float = 60.0, idle: float = 60.0, **more) -> Command:
        """`mpcc party` of a role."""
        arguments = ["party", "prog.mpc", "--role", role, "--hosts", "keys/hosts.toml"]
        arguments += ["--wait", str(wait), "--idle", str(idle), *(["--engine", "spu"] if self.spu else []), *options]
        return self.command(role, *arguments, **more)

    def all(self, *options: str, client: tuple[str, ...] = ("--input", "in.json"), **more) -> dict[str, Ended]:
        """All parties to their end, with the same options."""
        for role in self.roles:
            self.party(role, *options, *(client if role == "client" else ()), **more)
        return self.ended()

    def ended(self, *who: str) -> dict[str, Ended]:
        """How these commands (all) end."""
        return {name: self.commands.pop(name).end() for name in who or list(self.commands)}

    def session(self, *options: str, answers: int = 1, **more) -> None:
        """All parties, up to the answer to the first request; the client is there for more."""
        for role in self.roles:
            self.party(
                role,
                *self.stored,
                *options,
                *(("--input", "-") if role == "client" else ()),
                spoken=role == "client",
                **more,
            )
        for number in range(answers):
            self.ask()
            assert "output" in "".join(self.commands["client"].said(number + 1)), self.ended()

    def ask(self) -> None:
        self.commands["client"].tell(json.dumps(SAMPLES[0]))

    # ** processes **
    def find(self, role: str, kind: str) -> psutil.Process | None:
        """A process of a role's command: engine, tunnel, watchdog or compiler."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.commands[role].pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    line = " ".join(child.cmdline())
                    if any(word in line for word in KINDS[kind]):
                        return child
        return None

    def wait_for(self, role: str, kind: str) -> psutil.Process:
        """The process, as soon as it is there."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if (found := self.find(role, kind)) is not None:
                return found
            assert self.commands[role].running, self.commands[role].end()
            time.sleep(0.002)
        raise AssertionError(f"the {role} has no {kind}")

    def signal(self, role: str, kind: str, number: int) -> None:
        """A signal to a process of a role: mpcc itself, or what `find` finds."""
        pid = self.commands[role].pid if kind == "mpcc" else self.wait_for(role, kind).pid
        os.kill(pid, number)

    # ** what must be true **
    def works(self) -> None:
        """A whole session answers as the emulator does."""
        done = self.all(*self.stored, "--json")
        assert all(e.code == 0 for e in done.values()), done
        for got, sample in zip(json.loads(done["client"].out)["answers"], SAMPLES, strict=True):
            if self.stand_in:
                continue
            want = self.program.run(sample, engine="emulator").outputs["output"].numpy()
            assert np.abs(np.array(got["outputs"]["output"]) - want).max() < 0.01

    def stop(self) -> None:
        """Kill what still runs."""
        for command in self.commands.values():
            command.kill()
        self.commands.clear()

    def check_nothing_left(self) -> None:
        """No process, no working folder, no half-made state."""
        assert soon(lambda: not processes_below(self.folder)), processes_below(self.folder)
        assert soon(lambda: not self.leftovers()), self.leftovers()

    def leftovers(self) -> list[Path]:
        found = [*(p for who in (*self.roles, HERE) for p in (self.at(who) / "tmp").glob("*"))]
        return found + list(self.folder.glob("parts/*/*/.*.tmp"))

    def check_nothing_leaked(self, seen: Mapping[str, Ended]) -> None:
        """What is the client's or the provider's stands in no other's files, and in nothing that was said."""
        for owner, marks in self.marks.items():
            for role in set(self.roles) - {owner}:
                for path in self.at(role).rglob("*"):
                    if path.is_file():
                        content = path.read_bytes()
                        assert not any(mark in content for mark in marks), (owner, path)
            for who, ended in seen.items():
                said = ended.err + (ended.out if who not in (owner, HERE) else "")
                assert not any(mark in said.encode() for mark in marks), (owner, who)

    # ** folders **
    def remember(self) -> None:
        shutil.rmtree(self.backup, ignore_errors=True)
        shutil.copytree(self.folder / "parts", self.backup, symlinks=True)

    def restore(self) -> None:
        """The parties' folders as they were, with fresh ports."""
        shutil.rmtree(self.folder / "parts")
        shutil.copytree(self.backup, self.folder / "parts", symlinks=True)
        self.give_keys()


def _marks(of: Program) -> dict[str, list[bytes]]:
    """What only the provider and what only the client may have, in the forms in which it could be seen."""
    provider = [of.provider_stream()[:3].astype("<i8").tobytes()]
    for weights in of.provider_weights().values():
        if weights.size >= 4:
            provider.append(weights.ravel()[:4].astype("<f4").tobytes())
        provider += [repr(float(value)).encode()[:9] for value in weights.ravel()[:4]]
    client = [json.dumps(sample["input_ids"][0])[1:-1].encode() for sample in SAMPLES]
    client += [of.client_stream(sample)[:3].astype("<i8").tobytes() for sample in SAMPLES]
    for sample in SAMPLES:
        outputs = of.run(sample, engine="emulator").outputs["output"].double().ravel().tolist()
        client += [repr(value).encode()[:9] for value in outputs if value]
    return {"provider": provider, "client": client}


def stopped_while(place: Place, role: str, act: Callable[[], None]) -> None:
    """Do something while another party's engine stands still, so that a request is under way."""
    place.signal(role, "engine", signal.SIGSTOP)
    place.ask()
    time.sleep(0.2)
    act()
    with contextlib.suppress(psutil.Error, AssertionError):
        engine = place.find(role, "engine")
        if engine is not None:
            engine.send_signal(signal.SIGCONT)


def opened(folder: Path, engine: str) -> Place:
    """The place of an engine, provisioned where it stores shares."""
    place = Place(folder, engine)
    if not place.spu:
        place.store()
    return place
