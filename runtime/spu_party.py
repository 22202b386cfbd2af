"""One party of an SPU run, or the compiler of one, as a process of its own: the engine may abort its process.

Run as a script in the party's folder, with "compile" or "party" as its argument; it imports nothing of mpcc, and of
the wheel only the engine itself (the package's __init__ would import jax). What the folder holds:

    task.json                      who this party is, and the arguments and results of the program; nothing secret
    program.mlir  program.pphlo    StableHLO, and what compile makes of it
    hosts                          host:port of every party
    own.key  own.pem  peers.pem    this party's key and certificate, and the certificates of this run
    own.npz  public.npz            this party's own values and those that everybody has, by number of the argument
    outputs.npz                    what the client reconstructs; no other party has it
    report.json                    bytes and seconds

A party shares only what it owns: it makes the shares of its own values and sends each other party one of them over
the parties' link. It never holds the share of another party, except that the client gets the shares of the results.
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
from typing import Any

import numpy as np

PUBLIC = -1  # the owner of what every party has
CLIENT = 0
LINGER_SECONDS = 0.5
CONNECTED = "Starting timer: connected"  # runtime/parties.py looks for the first two words
_TAKEN = "Binding to socket failed: the port is taken"  # likewise
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
    spu, task = engine(), _task(folder)
    secret, public = spu.Visibility.VIS_SECRET, spu.Visibility.VIS_PUBLIC
    visibilities = [secret if entry["secret"] else public for entry in task["inputs"]]
    text = (folder / "program.mlir").read_bytes()
    source = spu.CompilationSource(spu.SourceIRType.STABLEHLO, text, visibilities)
    (folder / "program.pphlo").write_bytes(spu.compile(source, spu.CompilerOptions()))


# ** one party **
def run_party(folder: Path) -> None:
    """Connect, share, compute, and let the client reconstruct."""
    spu, task = engine(), _task(folder)
    rank, ranks = task["rank"], range(task["parties"])
    config = runtime_config(spu, task["protocol"], task["fraction_bits"])
    link = _connect(spu, folder, task)
    print(CONNECTED, flush=True)
    runtime = spu.RuntimeWrapper(link, config)
    io = spu.IoWrapper(len(ranks), config)
    begin = time.monotonic()
    sent = _share_inputs(spu, folder, task, link, io, runtime)
    shared = time.monotonic()
    inputs, outputs = _names("in", task["inputs"]), _names("out", task["outputs"])
    code = (folder / "program.pphlo").read_bytes()
    runtime.Run(spu.Executable(name="mpcc", input_names=inputs, output_names=outputs, code=code))
    done = time.monotonic()
    shares = [runtime.GetVar(name) for name in outputs]
    if rank != CLIENT:
        link.send(CLIENT, packed(shares))
        sent["output"] = sum(share_bytes(s) for s in shares)
    else:
        others = [unpacked(spu, link.recv(r)) for r in ranks if r != CLIENT]
        values = [io.Reconstruct([share, *(o[i] for o in others)]) for i, share in enumerate(shares)]
        with os.fdopen(os.open(folder / "outputs.npz", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            np.savez(file, **{str(i): v for i, v in enumerate(values)})
    report = {"sent": sent, "sharing_seconds": shared - begin, "seconds": done - shared}
    (folder / "report.json").write_text(json.dumps(report), "utf-8")
    # A peer whose last message is not acknowledged aborts: leave a moment later, and without stopping the link.
    time.sleep(LINGER_SECONDS)


def _task(folder: Path) -> Any:
    return json.loads((folder / "task.json").read_text("utf-8"))


def _names(prefix: str, entries: list[Any]) -> list[str]:
    return [f"{prefix}{i}" for i in range(len(entries))]


def _connect(spu: Any, folder: Path, task: Any) -> Any:
    """The link to all other parties, with TLS: each side shows a certificate of this run, or is turned away."""
    desc = spu.link.Desc()
    desc.id = task["run"]
    for i, host in enumerate((folder / "hosts").read_text("ascii").split()):
        desc.add_party(f"P{i}", host)
    desc.enable_ssl = True
    for options in (desc.client_ssl_opts, desc.server_ssl_opts):
        options.cert.certificate_path = str(folder / "own.pem")
        options.cert.private_key_path = str(folder / "own.key")
        options.verify.verify_depth = 1
        options.verify.ca_file_path = str(folder / "peers.pem")
    desc.connect_retry_times = task["connect_tries"]
    desc.connect_retry_interval_ms = 200
    desc.recv_timeout_ms = task["receive_seconds"] * 1000
    return spu.link.create_brpc(desc, task["rank"])


def _share_inputs(spu: Any, folder: Path, task: Any, link: Any, io: Any, runtime: Any) -> dict[str, int]:
    """Give the runtime this party's share of every argument. Returns the bytes sent for each owner's arguments."""
    rank, secret, public = task["rank"], spu.Visibility.VIS_SECRET, spu.Visibility.VIS_PUBLIC
    own, everybodys = np.load(folder / "own.npz"), np.load(folder / "public.npz")
    sent = 0
    for i, entry in enumerate(task["inputs"]):
        if entry["owner"] == PUBLIC:
            share = io.MakeShares(everybodys[str(i)], public, -1)[rank]
        elif entry["owner"] == rank:
            shares = io.MakeShares(own[str(i)], secret if entry["secret"] else public, -1)
            share = shares[rank]
            for other in range(task["parties"]):
                if other != rank:
                    link.send(other, packed([shares[other]]))
                    sent += share_bytes(shares[other])
        else:
            (share,) = unpacked(spu, link.recv(entry["owner"]))
        _check_share(spu, i, entry, share)
        runtime.SetVar(f"in{i}", share)
    return {"input": sent}


def _check_share(spu: Any, i: int, entry: Any, share: Any) -> None:
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
    if "Address already in use" in text or "start server failed" in text.lower():
        return _TAKEN
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
