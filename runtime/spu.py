"""The engine that runs a program on SecretFlow SPU, which pip installs: every party a process of its own.

The parties speak over TLS on the loopback; each is given its own values only (see spu_party.py), and only the client
reconstructs. Everything happens in a private temporary folder, which is removed afterwards:

    program/                     the StableHLO text, compiled there in a process of its own
    client/ provider/ helper/    what one party sees: the compiled program, its own key and values
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpcc.backends.spu import Input, StableHlo
from mpcc.compiler.errors import EngineError
from mpcc.runtime import spu_party
from mpcc.runtime.engine import Measured
from mpcc.runtime.keys import make_identity, write_private
from mpcc.runtime.parties import Limits, Party, last_line, run_parties
from mpcc.runtime.watchdog import Watchdog

NAME, PACKAGE = "spu", "spu"
INSTALL = "pip install mpcc[spu]"
FRACTION_BITS = 18
LARGEST = 2.0**15  # what is larger (the "minus infinity" of a mask) is cut to it: it would not fit the ring
KEEP = "MPCC_KEEP_WORK"
COMPILE_SECONDS = 600.0
RECEIVE_SECONDS = 300
CONNECT_TRIES = 60
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
_SENT = re.compile(r"Link details: total send bytes (\d+).*?send actions (\d+)")
_REFUSED = (b"certificate verify failed", b"unknown ca", b"CERTIFICATE_VERIFY_FAILED")
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Protocol:
    """A protocol of SPU: the roles of its parties in the order of their ranks, and what it protects against."""

    roles: tuple[str, ...]
    security: str


DEFAULT_PROTOCOL = "aby3"
# SEMI2K's multiplication triples come from rank 0, which could read everything: its name has to say so.
PROTOCOLS: Mapping[str, Protocol] = {
    "aby3": Protocol(("client", "provider", "helper"), "semi-honest, honest majority of three"),
    "cheetah": Protocol(("client", "provider"), "semi-honest, two parties"),
    "semi2k-trusted-first-party": Protocol(
        ("client", "provider"),
        "NOT secure between two parties: the triples come from the first party, the client, which must be trusted",
    ),
}


@dataclass(frozen=True)
class SpuJob:
    """One secure inference: the program, and the values of its arguments by the name of their tensor."""

    program: StableHlo
    client: Mapping[str, Array]
    provider: Mapping[str, Array]
    public: Mapping[str, Array]


@dataclass(frozen=True)
class SpuResult:
    """The client's outputs by name, and what they cost (rounds: send actions, an upper bound)."""

    outputs: dict[str, Array]
    measured: Measured


def installed_version() -> str:
    """The version of the wheel; EngineError if there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError("the spu engine is not installed: the package spu is missing", todo=INSTALL) from None


def protocol_of(name: str) -> Protocol:
    """A protocol by its name; EngineError for others, and for plain semi2k, which would promise too much."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if name == "semi2k":
        raise EngineError(
            "SEMI2K in SPU takes its triples from the first party, which must be trusted",
            todo="use aby3 or cheetah, or accept it by its full name, semi2k-trusted-first-party",
        )
    raise EngineError(f"the spu engine has no protocol {name!r}", todo=f"choose one of: {', '.join(PROTOCOLS)}")


def run_spu(
    job: SpuJob,
    *,
    protocol: str = DEFAULT_PROTOCOL,
    limits: Limits | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> SpuResult:
    """Compile and run a job, all parties on this machine.

    `on_stage` is called with "compile", "run" and "read" as they begin. With MPCC_KEEP_WORK=1 the working folder stays.
    EngineError, with every process ended and the folder removed, if the wheel is missing, a value does not belong to
    the owner that the program names, the engine refuses the program, or a party fails, stalls or is not of this run.
    """
    installed_version()
    chosen = protocol_of(protocol)
    values = _checked(job)
    work = Path(tempfile.mkdtemp(prefix="mpcc-spu-"))  # mode 0700
    try:
        with Watchdog(work, keep=os.environ.get(KEEP) == "1") as watchdog:
            on_stage("compile")
            seconds = _compile(job.program, work / "program", watchdog)
            parties = _prepare(job.program, values, protocol, chosen.roles, work)
            on_stage("run")
            _run(parties, watchdog, limits or Limits())
            on_stage("read")
            return SpuResult(_outputs(job.program, parties[0]), _measured(parties, seconds))
    except OSError as error:
        raise EngineError(
            f"the working folder or a process of it cannot be used: {error.strerror or error}", where=str(work.parent),
            todo="make room there, or set TMPDIR to another folder",
        ) from error  # fmt: skip


# ** what goes in **
def _checked(job: SpuJob) -> list[Array]:
    """The value of every argument, found at its owner."""
    held = {"client": job.client, "provider": job.provider, "public": job.public}
    return [_value(i, leaf, held) for i, leaf in enumerate(job.program.inputs)]


def _value(i: int, leaf: Input, held: Mapping[str, Mapping[str, Array]]) -> Array:
    if leaf.value is not None:
        return np.full(leaf.shape, leaf.value, np.float32)
    if leaf.tensor not in held[leaf.owner]:
        raise EngineError(f"the {leaf.owner} does not hold argument {i} of the program", where=leaf.tensor)
    if leaf.owner == "provider" and not leaf.secret:
        raise EngineError("wrong visibility: a weight of the provider is marked public", where=leaf.tensor)
    if leaf.owner == "public" and (leaf.secret or leaf.tensor in held["provider"]):
        raise EngineError("wrong visibility: a public weight is marked secret, or the provider's", where=leaf.tensor)
    value = np.asarray(held[leaf.owner][leaf.tensor], np.float32)
    if value.shape != leaf.shape:
        raise EngineError(f"argument {i} is {value.shape}, the program takes {leaf.shape}", where=leaf.tensor)
    if np.isnan(value).any():
        raise EngineError(f"argument {i} holds a value that is not a number", where=leaf.tensor)
    return np.clip(value, -LARGEST, LARGEST)


def _environment() -> dict[str, str]:
    """What a child process sees of ours: nothing that could change what it does."""
    passed = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1"}


def _command(action: str) -> list[str]:
    return [sys.executable, "-I", str(Path(spu_party.__file__).resolve()), action]


# ** compiling **
def _compile(program: StableHlo, folder: Path, watchdog: Watchdog) -> float:
    """Compile the text in `folder`; returns the seconds it took."""
    folder.mkdir()
    (folder / "program.mlir").write_text(program.text, "ascii")
    (folder / "task.json").write_text(json.dumps({"inputs": [{"secret": i.secret} for i in program.inputs]}), "ascii")
    begin = time.monotonic()
    process = watchdog.start(
        _command("compile"), cwd=folder, env=_environment(), stdout=folder / "stdout", stderr=folder / "stderr"
    )
    try:
        code = process.wait(COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    finally:
        watchdog.end(process)
    if code or not (folder / "program.pphlo").is_file():
        how = f"refused the program (exit code {code})" if code >= 0 else f"was ended by signal {-code}"
        said = last_line(folder / "stderr") or last_line(folder / "stdout") or "nothing"
        raise EngineError(f"SPU's compiler {how}: {said}", todo=f"see whether the wheel is whole: {INSTALL}")
    return time.monotonic() - begin


# ** the parties' folders **
def _prepare(program: StableHlo, values: list[Array], protocol: str, roles: tuple[str, ...], work: Path) -> list[Party]:
    """One folder for each role, holding its own values and key only."""
    identities = [make_identity(rank) for rank in range(len(roles))]
    peers = b"".join(identity.certificate for identity in identities)
    owners = [spu_party.PUBLIC if i.owner == "public" else roles.index(i.owner) for i in program.inputs]
    task = {
        "run": secrets.token_hex(8), "parties": len(roles), "protocol": protocol, "fraction_bits": FRACTION_BITS,
        "connect_tries": CONNECT_TRIES, "receive_seconds": RECEIVE_SECONDS,
        "outputs": [list(o.shape) for o in program.outputs],
        "inputs": [{"owner": o, "secret": i.secret, "shape": list(i.shape)}
                   for i, o in zip(program.inputs, owners, strict=True)],
    }  # fmt: skip
    parties = []
    for rank, role in enumerate(roles):
        folder = work / role
        folder.mkdir(mode=0o700)
        (folder / "task.json").write_text(json.dumps(task | {"rank": rank}), "ascii")
        (folder / "program.pphlo").write_bytes((work / "program" / "program.pphlo").read_bytes())
        write_private(folder / "own.key", identities[rank].key)
        (folder / "own.pem").write_bytes(identities[rank].certificate)
        (folder / "peers.pem").write_bytes(peers)
        for name, owner in (("own.npz", rank), ("public.npz", spu_party.PUBLIC)):
            _write_arrays(folder / name, {str(i): v for i, v in enumerate(values) if owners[i] == owner})
        parties.append(Party(rank, role, folder, _command("party")))
    return parties


def _write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


# ** running **
def _run(parties: list[Party], watchdog: Watchdog, limits: Limits) -> None:
    """Run the parties; a refused certificate is said before what follows from it."""
    try:
        run_parties(parties, watchdog, _environment(), limits)
    except EngineError:
        if any(_turned_away(party) for party in parties):
            raise EngineError(
                "a party was turned away: its certificate is not one of this run", where="the parties' link",
                todo="give every party the certificates of the same run",
            ) from None  # fmt: skip
        raise


def _turned_away(party: Party) -> bool:
    """Whether TLS, and nothing later, kept this party from being connected."""
    if not party.stderr.exists() or spu_party.CONNECTED.encode() in party.stdout.read_bytes():
        return False
    log = party.stderr.read_bytes()
    return any(word in log for word in _REFUSED)


def _outputs(program: StableHlo, client: Party) -> dict[str, Array]:
    """What the client reconstructed, by name."""
    path = client.folder / "outputs.npz"
    if not path.is_file():
        raise EngineError("the client received no outputs", where="party 0")
    with np.load(path) as arrays:
        found = {o.name: np.asarray(arrays[str(i)], np.float32) for i, o in enumerate(program.outputs)}
    for output in program.outputs:
        if found[output.name].shape != output.shape:
            raise EngineError("the client received an output of another shape than promised", where=output.name)
    return found


def _measured(parties: list[Party], compile_seconds: float) -> Measured:
    """Put the parties' reports and the engine's own counters together."""
    sent, actions = [], []
    for party in parties:
        log = party.stdout.read_text("utf-8", "replace") + party.stderr.read_text("utf-8", "replace")
        found = _SENT.findall(log)
        if not found:
            raise EngineError("a party did not report what it sent", where=f"party {party.player}")
        sent.append(int(found[-1][0]))
        actions.append(int(found[-1][1]))
    reports = [json.loads((p.folder / "report.json").read_text("utf-8")) for p in parties]
    provided = [r["sent"]["input"] for r in reports]
    return Measured(
        engine=NAME,
        bytes_by_party=tuple(sent),
        rounds_by_party=tuple(actions),
        seconds=max(r["seconds"] for r in reports),
        provisioning_bytes=sum(provided[1:]),
        provisioning_seconds=max(r["sharing_seconds"] for r in reports),
        input_bytes=provided[0] + sum(r["sent"].get("output", 0) for r in reports),
        compile_seconds=compile_seconds,
    )
