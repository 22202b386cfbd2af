"""One clear error for everything that goes wrong on SPU; afterwards no process and no folder is left."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from spu_jobs import signalled, small_job

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.spu import party as spu_party
from mpcc.runtime.spu import protocols as spu
from mpcc.runtime.spu import session as spu_session


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
def test_a_party_of_another_session(work, monkeypatch):
    """Its messages fit nowhere: nothing is shared."""
    join = spu_session.join_session

    def joined(party, session):
        join(party, session if party.role != "helper" else "0" * 64)

    monkeypatch.setattr(spu_session, "join_session", joined)
    with pytest.raises(EngineError, match=r"did not connect within 5 s|no party made progress for 5 s"):
        small_job()[0].run(limits=Limits(start=5.0, idle=5.0))


@pytest.mark.spu
def test_no_party_has_a_port(work, monkeypatch):
    """Nobody outside can say anything to a party, and each session has a number of its own."""
    ports, sessions = [], set()
    run = spu_session.run_parties

    def watched(parties, watchdog, env, limits, addresses, watch):
        sessions.update(json.loads((p.folder / "task.json").read_text())["session"] for p in parties)

        def look():
            for party in parties:
                with contextlib.suppress(psutil.Error):
                    ports.extend(psutil.Process(party.process.pid).net_connections("inet"))
            watch()

        run(parties, watchdog, env, limits, addresses, look)

    monkeypatch.setattr(spu_session, "run_parties", watched)
    for _ in range(2):
        small_job()[0].run()
    assert not ports and len(sessions) == 2


@pytest.mark.spu
def test_only_sockets_of_its_folder(tmp_path):
    (tmp_path / "hosts").write_text("unix:../client/engine.sock\n127.0.0.1:5000\n")
    with pytest.raises(ValueError, match="sockets of its folder only"):
        spu_party.connect(spu_party.engine(), tmp_path, {"session": "0" * 64})


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
