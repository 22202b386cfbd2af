"""Faults of a real run with all parties here; the table in tests/faults has those of parties that are apart."""

import os
import socket
import tempfile
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
from mpcc.runtime.parties import processes as parties


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("MPCC_KEEP_WORK", raising=False)
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert soon(lambda: not processes_below(tmp_path))


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
