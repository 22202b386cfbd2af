"""The spu engine: three (or two) real processes over TLS, and one clear error for everything that goes wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from small_graphs import stack
from tiny_models import batches, compiled, tiny

from mpcc.backends.spu import emit_stablehlo
from mpcc.compiler.errors import EngineError
from mpcc.compiler.interpret import outputs_of, run_graph
from mpcc.compiler.visibility import infer
from mpcc.runtime import spu, spu_party
from mpcc.runtime.keys import make_identity
from mpcc.runtime.parties import Limits

LIMITS = Limits(start=30.0, idle=20.0)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Working folders go below tmp_path; afterwards none is left, and no process of one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert parties_below(tmp_path) == {}


def parties_below(folder: Path) -> dict[str, psutil.Process]:
    """Role -> process of every party that runs below a folder."""
    found = {}
    for process in psutil.process_iter():
        try:
            place = Path(process.cwd())
            if place.is_relative_to(folder) and "party" in process.cmdline():
                found[place.name] = process
        except (psutil.Error, OSError):
            continue
    return found


def small_job() -> tuple[spu.SpuJob, np.ndarray]:
    graph, tensors = stack(2)
    owners = {name: "public" if "bias" in name else "provider" for name in tensors}
    graph = infer(graph, owners)
    x = torch.randn(3, 4)
    arrays = {o: {n: t.numpy() for n, t in tensors.items() if owners[n] == o} for o in ("provider", "public")}
    wanted = next(iter(outputs_of(graph, run_graph(graph, {"x": x}, tensors)).values())).numpy()
    return spu.SpuJob(emit_stablehlo(graph), {"x": x.numpy()}, arrays["provider"], arrays["public"]), wanted


# ** what it computes **
@pytest.mark.spu
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k-trusted-first-party"])
def test_protocols(work, protocol):
    job, wanted = small_job()
    stages: list[str] = []
    result = spu.run_spu(job, protocol=protocol, limits=LIMITS, on_stage=stages.append)
    assert np.abs(next(iter(result.outputs.values())) - wanted).max() <= 5e-3
    measured, parties = result.measured, len(spu.PROTOCOLS[protocol].roles)
    assert stages == ["compile", "run", "read"]
    assert len(measured.bytes_by_party) == parties and min(measured.bytes_by_party) > 0 and measured.rounds > 0
    weights = sum(v.size for v in job.provider.values())
    assert measured.provisioning_bytes >= 8 * weights  # every weight is sent as 64-bit shares
    assert measured.input_bytes > 0 and measured.seconds > 0


@pytest.mark.spu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("rows, length", [(1, 8), (2, 13)])
def test_classification(work, name, rows, length):
    """Padded batches of tiny models against PyTorch."""
    model = tiny(f"{name}ForSequenceClassification")
    inputs = batches(length, rows)
    program = compiled(model, inputs)
    code = emit_stablehlo(program.regions.mpc)
    owned = {o: {i.tensor: program.tensors[i.tensor].numpy() for i in code.inputs
                 if i.owner == o and i.value is None} for o in ("provider", "public")}  # fmt: skip
    for sample in inputs[:3]:
        shared = run_graph(program.regions.client, dict(sample), program.tensors)
        client = {k: v.to(torch.float32).numpy() for k, v in shared.items()}
        got = spu.run_spu(spu.SpuJob(code, client, owned["provider"], owned["public"]), limits=LIMITS)
        with torch.no_grad():
            wanted = model(**sample).logits.numpy()
        assert np.abs(got.outputs["logits"] - wanted).max() <= 5e-3


@pytest.mark.spu
@pytest.mark.slow
def test_a_saved_program(work, tmp_path_factory):
    import mpcc
    from tests.bundle import tiny_programs as programs

    path = tmp_path_factory.mktemp("saved") / "prog.mpc"
    programs.prefix_program().save(path)
    sample = {k: torch.nn.functional.pad(v, (0, 3)) for k, v in programs.sample(5).items()}
    result = mpcc.load(path).run(sample, engine="spu")
    with torch.no_grad():
        wanted = programs.frozen_prefix()(**sample).logits
    assert (result.outputs["logits"] - wanted).abs().max() <= 5e-3
    assert result.engine == "spu" and result.measured is not None and result.measured.bytes_online > 0


@pytest.mark.spu
def test_each_party_is_given_its_own_values_only(work, monkeypatch):
    """No byte of a weight reaches the client's or helper's folder, none of the input the provider's."""
    job, _ = small_job()
    seen: dict[str, bytes] = {}
    keep_run = spu._run

    def look(parties, watchdog, limits):
        for party in parties:
            arrays = np.load(party.folder / "own.npz")
            seen[party.role] = b"".join(arrays[k].tobytes() for k in arrays.files)
            assert (party.folder / "own.key").stat().st_mode & 0o077 == 0
        keep_run(parties, watchdog, limits)

    monkeypatch.setattr(spu, "_run", look)
    spu.run_spu(job, limits=LIMITS)
    assert seen["helper"] == b"" and seen["client"] == job.client["x"].tobytes()
    assert job.client["x"].tobytes() not in seen["provider"] and len(seen["provider"]) > 0


# ** what goes wrong **
def test_missing_wheel(work, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    job, _ = small_job()
    with pytest.raises(EngineError, match=re.escape("pip install mpcc[spu]")):
        spu.run_spu(job)


def test_semi2k_needs_its_full_name():
    with pytest.raises(EngineError, match="triples from the first party"):
        spu.protocol_of("semi2k")
    with pytest.raises(EngineError, match="choose one of: aby3, cheetah"):
        spu.protocol_of("spdz")
    assert "NOT secure" in spu.PROTOCOLS["semi2k-trusted-first-party"].security


@pytest.mark.spu
def test_wrong_visibility(work):
    job, _ = small_job()
    for owner, secret in (("provider", False), ("public", True)):
        inputs = tuple(replace(i, secret=secret) if i.owner == owner else i for i in job.program.inputs)
        with pytest.raises(EngineError, match="wrong visibility"):
            spu.run_spu(replace(job, program=replace(job.program, inputs=inputs)))
    with pytest.raises(EngineError, match="the client does not hold argument 0"):
        spu.run_spu(replace(job, client={}))


@pytest.mark.spu
def test_a_party_that_opens_its_share_is_refused(work, monkeypatch):
    """The provider sends its weights in clear: the others stop at once."""
    job, _ = small_job()

    def opened(party):
        task = json.loads((party.folder / "task.json").read_text())
        for entry in task["inputs"]:
            entry["secret"] = False
        (party.folder / "task.json").write_text(json.dumps(task))

    with prepared(monkeypatch, "provider", opened), pytest.raises(EngineError, match="wrong visibility: argument"):
        spu.run_spu(job, limits=LIMITS)


@pytest.mark.spu
def test_foreign_certificate(work, monkeypatch):
    job, _ = small_job()

    def foreign(party):
        stranger = make_identity(party.player)
        (party.folder / "own.key").write_bytes(stranger.key)
        (party.folder / "own.pem").write_bytes(stranger.certificate)

    with (
        prepared(monkeypatch, "helper", foreign),
        pytest.raises(EngineError, match="certificate is not one of this run"),
    ):
        spu.run_spu(job, limits=Limits(start=8.0, idle=20.0))


@pytest.mark.spu
@pytest.mark.parametrize("role", ["client", "provider", "helper"])
def test_killed_party(work, monkeypatch, role):
    with signalled(work, role, signal.SIGKILL), pytest.raises(EngineError, match=f"the {role} was ended by SIGKILL"):
        spu.run_spu(small_job()[0], limits=LIMITS)


@pytest.mark.spu
def test_stopped_party(work):
    with signalled(work, "helper", signal.SIGSTOP), pytest.raises(EngineError, match=r"helper \(stopped\)"):
        spu.run_spu(small_job()[0], limits=Limits(start=6.0, idle=6.0))


@pytest.mark.spu
def test_a_program_that_the_compiler_refuses(work):
    job, _ = small_job()
    broken = replace(job.program, text=job.program.text.replace("stablehlo.add", "stablehlo.nonsense"))
    with pytest.raises(EngineError, match="SPU's compiler"):
        spu.run_spu(replace(job, program=broken))


class prepared:
    """While this context lasts, `change` is applied to the folder of one role before the parties start."""

    def __init__(self, monkeypatch, role, change) -> None:
        self.monkeypatch, self.role, self.change = monkeypatch, role, change

    def __enter__(self) -> None:
        original = spu._prepare

        def prepare(*arguments):
            parties = original(*arguments)
            self.change(next(p for p in parties if p.role == self.role))
            return parties

        self.monkeypatch.setattr(spu, "_prepare", prepare)

    def __exit__(self, *error: object) -> None:
        self.monkeypatch.undo()


class signalled:
    """While this context lasts, the first process of a role that appears gets a signal."""

    def __init__(self, folder: Path, role: str, number: int) -> None:
        self.thread = threading.Thread(target=self.watch, args=(folder, role, number), daemon=True)
        self.done = threading.Event()

    def watch(self, folder: Path, role: str, number: int) -> None:
        while not self.done.is_set():
            if role in (found := parties_below(folder)):
                time.sleep(0.3)
                os.kill(found[role].pid, number)
                return
            time.sleep(0.02)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()


def test_shares_as_bytes():
    """Packing is undone by unpacking, and a cut message is refused."""

    class Share:
        meta = b""
        share_chunks: list[bytes] = []

    engine = SimpleNamespace(Share=Share)
    share = Share()
    share.meta, share.share_chunks = b"meta", [b"one", b"", b"three"]
    message = spu_party.packed([share, share])
    first, second = spu_party.unpacked(engine, message)
    assert first.meta == b"meta" and second.share_chunks == [b"one", b"", b"three"]
    with pytest.raises(ValueError, match="malformed"):
        spu_party.unpacked(engine, message[:-2])
