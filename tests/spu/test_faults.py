"""One clear error for everything that goes wrong on SPU; afterwards no process and no folder is left."""

from __future__ import annotations

import importlib.metadata
import json
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from forged import signed_by
from spu_jobs import prepared, signalled, small_job

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.keys import Identity, make_identity
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.spu import party as spu_party
from mpcc.runtime.spu import protocols as spu


def test_missing_wheel(work, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    job, _ = small_job()
    with pytest.raises(EngineError, match=re.escape("pip install mpcc[spu]")):
        job.run()


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
            replace(job, program=replace(job.program, inputs=inputs)).run()
    with pytest.raises(EngineError, match="wrong visibility"):
        replace(job, public=job.public | job.provider).run()


@pytest.mark.spu
def test_wrong_values(work):
    job, _ = small_job()
    name, weight = next(iter(job.provider.items()))
    for changed, message in (
        (replace(job, provider={}), "the provider does not hold argument"),
        (replace(job, provider=job.provider | {name: weight[:1]}), "the program takes"),
        (replace(job, provider=job.provider | {name: weight * np.nan}), "not a number"),
    ):
        with pytest.raises(EngineError, match=message):
            changed.run()


@pytest.mark.spu
def test_a_request_that_does_not_fit(work):
    """The session ends when the client has nothing that fits."""
    job, _ = small_job()
    with pytest.raises(EngineError, match="the client does not hold argument 0"):
        job.run({})


@pytest.mark.spu
def test_a_share_that_is_open_is_refused():
    """Whatever a party says before: what it sends must be as secret as the program says."""
    engine = spu_party.engine()
    config = spu_party.runtime_config(engine, "aby3", spu.FRACTION_BITS)
    shares = engine.IoWrapper(3, config).MakeShares(np.ones((2, 3), np.float32), engine.Visibility.VIS_PUBLIC, -1)
    entry = {"owner": 1, "secret": True, "shape": [2, 3]}
    with pytest.raises(ValueError, match="wrong visibility: argument 4 must be secret"):
        spu_party.check_share(engine, 4, entry, shares[0])
    spu_party.check_share(engine, 4, entry | {"secret": False}, shares[0])
    with pytest.raises(ValueError, match="another shape"):
        spu_party.check_share(engine, 4, entry | {"secret": False, "shape": [3, 2]}, shares[0])


@pytest.mark.spu
@pytest.mark.slow
def test_a_certificate_signed_with_a_partys_key(work, monkeypatch):
    """The helper shows one in its own name that the provider's key signed, with the provider's behind it."""

    def forged(party):
        provider = party.folder.parent / "provider"
        signer = Identity("P1", (provider / "own.pem").read_bytes(), (provider / "own.key").read_bytes())
        made = signed_by(signer, 2)
        (party.folder / "own.pem").write_bytes(made.certificate + signer.certificate)
        (party.folder / "own.key").write_bytes(made.key)

    with prepared(monkeypatch, "helper", forged), pytest.raises(EngineError, match="a party was turned away"):
        small_job()[0].run(limits=Limits(start=8.0, idle=8.0))


@pytest.mark.spu
@pytest.mark.slow
def test_parties_that_do_not_agree(work, monkeypatch):
    """The provider takes its weights for public: the others stop before anything is shared."""

    def opened(party):
        task = json.loads((party.folder / "task.json").read_text())
        for entry in task["inputs"]:
            entry["secret"] = False
        (party.folder / "task.json").write_text(json.dumps(task))

    with prepared(monkeypatch, "provider", opened), pytest.raises(EngineError, match="do not run the same program"):
        small_job()[0].run()


@pytest.mark.spu
@pytest.mark.slow
def test_foreign_certificate(work, monkeypatch):
    def foreign(party):
        stranger = make_identity(party.player)
        (party.folder / "own.key").write_bytes(stranger.key)
        (party.folder / "own.pem").write_bytes(stranger.certificate)

    with (
        prepared(monkeypatch, "helper", foreign),
        pytest.raises(EngineError, match="certificate is not one of those agreed on"),
    ):
        small_job()[0].run(limits=Limits(start=60.0, idle=60.0))


@pytest.mark.spu
@pytest.mark.slow
@pytest.mark.parametrize("role", ["client", "provider", "helper"])
def test_killed_party(work, role):
    with signalled(work, role, signal.SIGKILL), pytest.raises(EngineError, match=f"the {role} was ended by SIGKILL"):
        small_job()[0].run()


@pytest.mark.spu
@pytest.mark.slow
def test_stopped_party(work):
    with signalled(work, "helper", signal.SIGSTOP), pytest.raises(EngineError, match=r"helper \(stopped\)"):
        small_job()[0].run(limits=Limits(start=6.0, idle=6.0))


@pytest.mark.spu
def test_a_program_that_the_compiler_refuses(work):
    job, _ = small_job()
    broken = replace(job.program, text=job.program.text.replace("stablehlo.add", "stablehlo.nonsense"))
    with pytest.raises(EngineError, match="SPU's compiler"):
        replace(job, program=broken).run()


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
