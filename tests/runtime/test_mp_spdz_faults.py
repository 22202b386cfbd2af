"""Faults of a real run: who failed is named, and nothing is left."""

import os
import signal
import socket
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import primitives
import pytest
from fake_home import processes_below, soon
from mp_spdz_here import needs_mp_spdz
from one_request import run_job
from ring_cases import make

from mpcc.compiler.errors import EngineError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingType
from mpcc.runtime.parties import processes as parties
from mpcc.runtime.parties.processes import Limits

ROLES = ("client", "provider", "helper")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("MPCC_KEEP_WORK", raising=False)
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert soon(lambda: not processes_below(tmp_path))


def endless(b):
    """Ten million rounds."""
    inner = Builder(prefix="b")
    x = inner.arg("carried", 0, RingType((4,), 0, 1.0))
    body = inner.graph([("x", inner.mul(x, x))])
    return {"y": b.repeat([b.input("x", (4,), 0, 1.0, "client")], [], body, 10**7)[0]}


def during_the_run(work, action):
    """Do something to the parties, by role, once all of them have been running for a while."""

    def wait():
        found = {}
        while not found.keys() >= set(ROLES):
            time.sleep(0.05)
            found = running_parties(work)
        action(found)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def running_parties(work):
    """Process ids of the parties that have begun the inference, by role."""
    found = {}
    for pid in processes_below(work):
        process = Path(f"/proc/{pid}")
        try:
            begun = "Starting timer 1" in (process / "cwd" / "stdout").read_text()
            if begun and "-party.x" in (process / "cmdline").read_text():
                found[(process / "cwd").readlink().name] = pid
        except OSError:
            continue
    return found


@needs_mp_spdz
@pytest.mark.parametrize("role", ROLES)
def test_a_party_is_killed(work, role):
    thread = during_the_run(work, lambda pids: os.kill(pids[role], signal.SIGKILL))
    with pytest.raises(EngineError, match=f"the {role} was ended by SIGKILL"):
        run_job(make(endless).job)
    thread.join(5)


@needs_mp_spdz
def test_a_party_is_stopped(work):
    thread = during_the_run(work, lambda pids: os.kill(pids["provider"], signal.SIGSTOP))
    with pytest.raises(EngineError, match=r"no party made progress for 3 s.*provider \(stopped\)"):
        run_job(make(endless).job, limits=Limits(idle=3.0))
    thread.join(5)


@needs_mp_spdz
def test_a_port_is_in_use(work, monkeypatch):
    """The ports that are tried first are taken: other ones are used."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        free, tried = parties.free_ports, []

        def ports(count):
            tried.append([taken.getsockname()[1], *free(count - 1)] if not tried else free(count))
            return tried[-1]

        monkeypatch.setattr(parties, "free_ports", ports)
        run_job(make(primitives.linear).job)
    assert len(tried) == 2


@needs_mp_spdz
def test_a_source_that_does_not_compile(work):
    job = replace(make(primitives.linear).job, source="x = sint.Array(3)\nx.no_such_method()\n")
    with pytest.raises(EngineError, match=r"compiler refused the program: AttributeError.*no_such_method"):
        run_job(job)


@needs_mp_spdz
@pytest.mark.parametrize("stream, role", [("client_stream", "client"), ("provider_stream", "provider")])
def test_a_stream_is_too_short(work, stream, role):
    """Its sizes are said to be right, but the source reads more."""
    job = make(primitives.loops).job
    with pytest.raises(EngineError, match=f"the {role} failed") as caught:
        run_job(replace(job, **{stream: np.zeros(1, np.int64)}))
    assert "\n" not in str(caught.value)


@needs_mp_spdz
def test_nothing_is_written_into_mp_spdz(work):
    home = Path(os.environ["MP_SPDZ_HOME"])
    before = time.time() - 0.5
    run_job(make(primitives.products).job)
    assert not [p for p in home.rglob("*") if not p.is_symlink() and p.stat().st_mtime > before]
