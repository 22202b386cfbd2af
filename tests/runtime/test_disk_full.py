"""A disk that is really full: a small file system of its own for the working folder, filled up before the run."""

import os
import shutil
import subprocess
import tempfile

import numpy as np
import primitives
import pytest
from fake_home import make_home, processes_below, soon
from mp_spdz_here import needs_mp_spdz
from one_request import Job, run_job
from ring_cases import assert_same, make, run_emulator

from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.session import provision, serve

NONE = np.zeros(0, np.int64)
SIZE = 1 << 20
FREE = (0, 8, 60, 110)  # kilobytes: too few for the source, for the byte code, for the parties' folders, for their logs
FULL = "No space left on device.*make room there, or set TMPDIR"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The mounted file system, on which working folders are made; afterwards nothing stands there and nothing runs."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("MPCC_KEEP_WORK", raising=False)
    try:
        yield folder
        assert [p.name for p in folder.iterdir()] in ([], ["filler"])
        assert soon(lambda: not processes_below(tmp_path))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder, kilobytes):
    """Leave so many kilobytes; the rest is one file."""
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - 1024 * kilobytes)))
    return filler


def fails(action, match=FULL):
    with pytest.raises(EngineError, match=match) as caught:
        action()
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


@pytest.mark.parametrize("kilobytes", FREE[:3])
def test_a_stand_in(small, tmp_path, kilobytes):
    """The parties of this one write 100 kB each."""
    behaviour = "begin(); pathlib.Path('log').write_bytes(bytes(100_000)); finish()"
    home = make_home(tmp_path / "home", behaviour)
    job = Job("x = 1\n", "ring", NONE, np.array([7]), np.array([1, 2, 3]), (("y", 3),))
    filler = fill(small, kilobytes)
    fails(lambda: run_job(job, home=home))
    filler.unlink()
    assert run_job(job, home=home).outputs["y"].tolist() == [1, 2, 3]


@needs_mp_spdz
@pytest.mark.parametrize("kilobytes", FREE)
def test_a_run(small, kilobytes):
    case = make(primitives.matmuls)
    filler = fill(small, kilobytes)
    fails(lambda: run_job(case.job))
    filler.unlink()
    assert_same(run_job(case.job).outputs, run_emulator(case))


def large(b):
    """40,000 weights: 640 kB of shares for each party."""
    x = b.input("x", (1, 200), 8, 10.0, "client")
    return {"y": b.matmul(x, b.param(("w",), (200, 200), 8, 1.0, public=False))}


@needs_mp_spdz
def test_no_room_for_the_shares(small, tmp_path, monkeypatch):
    """The disk of the state is full, that of the working folder is not."""
    case, work, state = make(large), tmp_path / "work", small / "state"
    weights = case.region(False)
    program = Emitted(case.source.text, "ring", "layout", NONE, weights.size, 200, case.job.outputs)
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    filler = fill(small, 400)
    fails(lambda: provision(program, weights, state), "room on the disk|No space left on device")
    assert not list(work.iterdir()) and not list(state.iterdir())
    filler.unlink()
    grow(small)
    provision(program, weights, state)
    answers = serve(program, [case.client_stream], state=state).answers
    assert_same(answers[0], run_emulator(case))
    shutil.rmtree(state)


def grow(folder):
    """Room for all parties' shares."""
    subprocess.run(["mount", "-o", f"remount,size={8 * SIZE}", str(folder)], check=True)
