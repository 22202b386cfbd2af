"""One party of an SPU session, or the compiler of one, as a process of its own: the engine may abort its process.

Run as a script in the party's folder, with "compile" or "party" as its argument; it imports nothing of mpcc, and of
the wheel only the engine itself (the package's __init__ would import jax). What the folder holds:

    task.json                      who this party is, and the arguments and results of the program; nothing secret
    program.mlir  program.pphlo    StableHLO, and what compile makes of it
    hosts                          the Unix socket at which every party is reached
    weights.npz  public.npz        the provider's weights, and what everybody has, by number of the argument
    requests  answers.bin          the client's: what it wants to know (a pipe), and what it reconstructed
    report.jsonl                   bytes and seconds: one line for the weights, then one for each inference

A party shares only what it owns: it makes the shares of its own values and sends each other party one of them over
the parties' link. It never holds the share of another party, except that the client gets the shares of the results.
Weights are shared once; then the client says before each inference whether there is another one.

A request is the client's arguments one after the other as float64, and after it the integer 1 if another one follows,
else 0; an answer is the results as float64, and the integer 0.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
import time
import types
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PUBLIC = -1  # the owner of what every party has
CLIENT = 0
LINGER_SECONDS = 0.5
TRY_AGAIN_MS = 200
_UNIX = "unix:"
STOP, GO = b"\0", b"\1"
CONNECTED = "Starting timer: connected"  # runtime/parties/processes.py looks for the first two words
_NETWORK = ("send", "recv", "receive", "timeout", "connect", "peer", "channel", "link", "rpc")
_SETTINGS = {"aby3": "ABY3", "cheetah": "CHEETAH", "semi2k-trusted-first-party": "SEMI2K"}


def engine() -> Any:
    """The engine's module, without jax. ImportError if the wheel is missing or does not fit this machine."""
    if "spu" not in sys.modules:
        spec = PathFinder.find_spec("spu")
        if spec is None or spec.submodule_search_locations is None or spec.origin is None:
            raise ImportError("no package spu")
        package = types.ModuleType("spu")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["spu"] = package
    return importlib.import_module("spu.libspu")


def runtime_config(spu: Any, protocol: str, fraction_bits: int) -> Any:
    """64-bit ring, exp by its Pade form; the profile is what makes the engine log what it sent."""
    config = spu.RuntimeConfig(getattr(spu.ProtocolKind, _SETTINGS[protocol]), spu.FieldType.FM64, fraction_bits)
    config.fxp_exp_mode = spu.RuntimeConfig.ExpMode.EXP_PADE
    config.enable_pphlo_profile = True
    return config


def compile_program(folder: Path) -> None:
    """program.mlir -> program.pphlo."""
    spu, task = engine(), json.loads((folder / "task.json").read_text("utf-8"))
    secret, public = spu.Visibility.VIS_SECRET, spu.Visibility.VIS_PUBLIC
    visibilities = [secret if entry["secret"] else public for entry in task["inputs"]]
    text = (folder / "program.mlir").read_bytes()
    source = spu.CompilationSource(spu.SourceIRType.STABLEHLO, text, visibilities)
    (folder / "program.pphlo").write_bytes(spu.compile(source, spu.CompilerOptions()))


# ** one party **
class Session:
    """A party that is connected to all others, and whose runtime holds its shares."""

    def __init__(self, folder: Path) -> None:
        self.spu, self.folder, self.task = engine(), folder, json.loads((folder / "task.json").read_text("utf-8"))
        self.rank, self.inputs = int(self.task["rank"]), list(self.task["inputs"])
        self.others = [rank for rank in range(self.task["parties"]) if rank != self.rank]
        config = runtime_config(self.spu, self.task["protocol"], self.task["fraction_bits"])
        self.io = self.spu.IoWrapper(self.task["parties"], config)
        self.link = connect(self.spu, folder, self.task)
        print(CONNECTED, flush=True)
        self.runtime = self.spu.RuntimeWrapper(self.link, config)
        outputs = [f"out{i}" for i in range(len(self.task["outputs"]))]
        names = [f"in{i}" for i in range(len(self.inputs))]
        code = (folder / "program.pphlo").read_bytes()
        self.program = self.spu.Executable(name="mpcc", input_names=names, output_names=outputs, code=code)

    def share(self, owners: set[int], values: Any) -> int:
        """Give the runtime its share of every argument of these owners; `values` has this party's own, by number.

        Returns the bytes that this party sent for them.
        """
        secret, public = self.spu.Visibility.VIS_SECRET, self.spu.Visibility.VIS_PUBLIC
        sent = 0
        for i, entry in enumerate(self.inputs):
            if entry["owner"] not in owners:
                continue
            if entry["owner"] == PUBLIC:
                share = self.io.MakeShares(values[str(i)], public, -1)[self.rank]
            elif entry["owner"] == self.rank:
                shares = self.io.MakeShares(values[str(i)], secret if entry["secret"] else public, -1)
                share = shares[self.rank]
                for other in self.others:
                    self.link.send(other, packed([shares[other]]))
                    sent += share_bytes(shares[other])
            else:
                (share,) = unpacked(self.spu, self.link.recv(entry["owner"]))
            check_share(self.spu, i, entry, share)
            self.runtime.SetVar(f"in{i}", share)
        return sent

    def infer(self, values: Any) -> tuple[list[Any], dict[str, float]]:
        """One inference on the client's `values`; what the client reconstructed (others: nothing), and its cost."""
        given = self.share({CLIENT}, values)
        begin = time.monotonic()
        self.runtime.Run(self.program)
        seconds = time.monotonic() - begin
        shares = [self.runtime.GetVar(f"out{i}") for i in range(len(self.task["outputs"]))]
        if self.rank != CLIENT:
            self.link.send(CLIENT, packed(shares))
            return [], {"input": given + sum(share_bytes(s) for s in shares), "seconds": seconds}
        others = [unpacked(self.spu, self.link.recv(rank)) for rank in self.others]
        results = [self.io.Reconstruct([share, *(o[i] for o in others)]) for i, share in enumerate(shares)]
        return results, {"input": given, "seconds": seconds}

    def report(self, **numbers: float) -> None:
        with (self.folder / "report.jsonl").open("a", encoding="ascii") as file:
            file.write(json.dumps(numbers) + "\n")

    def tell(self, word: bytes) -> None:
        for other in self.others:
            self.link.send(other, word)


def run_party(folder: Path) -> None:
    """Connect, share the weights, and answer the client's requests until it has no more."""
    session = Session(folder)
    begin = time.monotonic()
    with np.load(folder / "public.npz") as public:
        session.share({PUBLIC}, public)
    with np.load(folder / "weights.npz") as weights:
        sent = session.share(set(range(session.task["parties"])) - {CLIENT}, weights)
    session.report(weights=sent, seconds=time.monotonic() - begin)
    if session.rank == CLIENT:
        _ask(session)
    else:
        while session.link.recv(CLIENT) == GO:
            session.report(control=0, **session.infer({})[1])
    session.tell(STOP) if session.rank == CLIENT else None
    # A peer whose last message is not acknowledged aborts: leave a moment later, and without stopping the link.
    time.sleep(LINGER_SECONDS)


def _ask(session: Session) -> None:
    """The client's side: one inference for each request, each answered before the next is read."""
    answers = session.folder / "answers.bin"
    shapes = {i: e["shape"] for i, e in enumerate(session.inputs) if e["owner"] == CLIENT}
    with (session.folder / "requests").open("rb") as pipe:
        more = True
        while more:
            values = {str(i): _read(pipe, "<f8", shape).astype(np.float32) for i, shape in shapes.items()}
            session.tell(GO)
            results, cost = session.infer(values)
            session.report(control=len(session.others), **cost)
            content = b"".join(np.asarray(r, "<f8").tobytes() for r in results) + bytes(8)
            with os.fdopen(os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                file.write(content)
            more = bool(_read(pipe, "<i8", []))


def _read(pipe: BinaryIO, kind: str, shape: list[int]) -> Any:
    size = 8 * int(np.prod(shape, dtype=np.int64))
    content = pipe.read(size)
    if len(content) != size:
        raise ValueError("the client's requests ended too early")
    return np.frombuffer(content, kind).reshape(shape)


def connect(spu: Any, folder: Path, task: Any) -> Any:
    """The link to all other parties, by sockets in folders that nobody else can enter. ValueError for other addresses.

    The engine's own TLS is of no use: it takes plain text at the same port. On the way to another host it is mpcc's
    tunnel that encrypts, authenticates, and has compared the programs. No session takes the messages of another one.
    """
    desc = spu.link.Desc()
    desc.id = task["session"]
    for rank, address in enumerate((folder / "hosts").read_text("ascii").split()):
        if not address.startswith(_UNIX):
            raise ValueError("a party is reached by sockets of its folder only")
        desc.add_party(f"P{rank}", address)
    desc.connect_retry_times = task["connect_tries"]
    desc.connect_retry_interval_ms = TRY_AGAIN_MS
    desc.recv_timeout_ms = int(task["receive_seconds"] * 1000)
    return spu.link.create_brpc(desc, task["rank"])


def check_share(spu: Any, i: int, entry: Any, share: Any) -> None:
    """Whoever sends a share must not change what the program takes for secret, or its shape."""
    meta = spu.ValueMeta()
    meta.ParseFromString(share.meta)
    wanted = spu.Visibility.VIS_SECRET if entry["secret"] else spu.Visibility.VIS_PUBLIC
    if int(meta.visibility) != int(wanted):
        raise ValueError(f"wrong visibility: argument {i} must be {'secret' if entry['secret'] else 'public'}")
    if list(meta.shape.dims) != entry["shape"]:
        raise ValueError(f"argument {i} has another shape than the program takes")


# ** shares as bytes **
def share_bytes(share: Any) -> int:
    """The content of a share, without its description."""
    return sum(len(chunk) for chunk in share.share_chunks)


def packed(shares: list[Any]) -> bytes:
    """Shares as one message: each a count of parts, then length and content of each part (meta first)."""
    message = []
    for share in shares:
        parts = [bytes(share.meta), *(bytes(chunk) for chunk in share.share_chunks)]
        message.append(struct.pack("<Q", len(parts)))
        message += [piece for part in parts for piece in (struct.pack("<Q", len(part)), part)]
    return b"".join(message)


def unpacked(spu: Any, message: bytes) -> list[Any]:
    """The shares in a message. ValueError if it is malformed."""
    at, shares = 0, []

    def length() -> int:
        nonlocal at
        if at + 8 > len(message):
            raise ValueError("a share from another party is malformed")
        at += 8
        return int(struct.unpack_from("<Q", message, at - 8)[0])

    while at < len(message):
        parts = []
        for _ in range(length()):
            size = length()
            parts.append(message[at : at + size])
            at += size
        if not parts or at > len(message):
            raise ValueError("a share from another party is malformed")
        share = spu.Share()
        share.meta, share.share_chunks = parts[0], parts[1:]
        shares.append(share)
    return shares


def explained(error: Exception) -> str:
    """One line about an error, without the engine's stack."""
    text = " ".join(str(error).split("stacktrace")[0].split())[:240] or type(error).__name__
    if isinstance(error, (RuntimeError, OSError)) and any(word in text.lower() for word in _NETWORK):
        return f"communication with another party failed: {text}"
    return text


def main() -> None:
    """Do what the argument says; the reason of a failure is the last line of stderr."""
    try:
        {"compile": compile_program, "party": run_party}[sys.argv[1]](Path.cwd())
    except Exception as error:
        sys.stdout.flush()
        sys.stderr.write(f"\n{explained(error)}\n")
        sys.stderr.flush()
        os._exit(1)  # threads of the link must not keep the process, nor say the last word
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
