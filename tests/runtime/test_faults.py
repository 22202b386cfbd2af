"""Runs with a stand-in for MP-SPDZ: what is told, and what is left of them; faults stand in tests/faults."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import child
import numpy as np
import pytest
from fake_home import GOOD, make_home, processes_below, soon
from one_request import Job, run_job

from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz.counters import NO_LIMIT
from mpcc.runtime.parties.processes import Limits

ENOUGH = Limits(start=60.0, idle=30.0)  # for a busy machine; what is expected to stall says how soon by itself
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")


def job(source="x = 1\n", protocol="ring"):
    public, provider, client = (np.array(values, np.int64) for values in ([], [7], [1, -2, 3]))
    return Job(source, protocol, public, provider, client, (("y", 1), ("z", 2)))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Where working folders are made; empty, and used by no process, when the test is over."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("MPCC_KEEP_WORK", raising=False)
    yield folder
    assert not list(folder.iterdir())
    assert soon(lambda: not processes_below(tmp_path))


def fails(work, behaviour, match, limits=ENOUGH, **options):
    home = make_home(work.parent / "home", behaviour)
    with pytest.raises(EngineError, match=match) as caught:
        run_job(job(**options), home=home, limits=limits)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


def test_outputs_and_measures(work):
    stages = []
    result = run_job(job(), home=make_home(work.parent / "home"), on_stage=stages.append)
    assert {name: value.tolist() for name, value in result.outputs.items()} == {"y": [1], "z": [-2, 3]}
    measured = result.measured
    assert measured.bytes_by_party == (1234567,) * 3 and measured.rounds_by_party == (10, 11, 12)
    assert (measured.provisioning_bytes, measured.input_bytes) == (1500000, 72)
    assert (measured.seconds, measured.provisioning_seconds) == (0.25, 0.25)
    assert stages == ["compile", "run", "read"]


def test_each_party_has_only_its_own(work):
    """No folder but the client's holds its input, and none a foreign key; all of it is the owner's alone."""
    inside = "(record / f'seen{player}').write_text(' '.join(sorted(f.name for f in pathlib.Path('.').rglob('*'))))\n"
    inside += "content = (data / f'Input-Binary-P{player}-0').read_bytes()\n"
    inside += "(record / f'stream{player}').write_bytes(content)\n"
    inside += "(record / f'mode{player}').write_text(oct(os.stat('..').st_mode & 0o777) + "
    inside += "oct(os.stat(data / f'P{player}.key').st_mode & 0o777))\nbegin(); finish(content)"
    home = make_home(work.parent / "home", inside)
    run_job(job(), home=home)
    for player, stream in enumerate(([NO_LIMIT, 1, -2, 3, 0], [7, NO_LIMIT, NO_LIMIT], [NO_LIMIT])):
        assert np.frombuffer((home / f"stream{player}").read_bytes(), "<i8").tolist() == stream
        names = (home / f"seen{player}").read_text().split()
        own = [f"Input-Binary-P{player}-0", f"P{player}.key"]
        assert [n for n in names if n.endswith(".key") or n.startswith("Input-")] == own
        assert (home / f"mode{player}").read_text() == "0o7000o600"


def test_keeps_the_folder_when_asked(work, monkeypatch):
    monkeypatch.setenv("MPCC_KEEP_WORK", "1")
    run_job(job(), home=make_home(work.parent / "home"))
    (kept,) = work.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o700 and (kept / "helper").is_dir()
    subprocess.run(["rm", "-r", str(kept)], check=True)


# ** what fails **
def test_disk_full(work, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mpcc.runtime.mp_spdz.session.write_private", full)
    fails(work, GOOD, "No space left on device")


def test_a_run_after_a_failure_works(work):
    home = make_home(work.parent / "home", "begin(); finish() if (record / 'ok').exists() else sys.exit(1)")
    with pytest.raises(EngineError, match="failed"):
        run_job(job(), home=home, limits=ENOUGH)
    (home / "ok").touch()
    assert run_job(job(), home=home, limits=ENOUGH).outputs["y"].tolist() == [1]


# ** the end of mpcc itself **
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.session import serve
n = np.zeros(1, np.int64)
serve(Emitted("x = 1", "ring", "layout", n, 1, 1, (("y", 1),)), [n], weights=n, home=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_mpcc_is_ended(work, number):
    home = make_home(work.parent / "home", "begin()\n(record / f'up{player}').touch()\ntime.sleep(60)")
    process = child.start(
        [sys.executable, "-c", SCRIPT, str(home)], env={**os.environ, "TMPDIR": str(work)}, stderr=subprocess.PIPE
    )
    try:
        assert soon(lambda: all((home / f"up{i}").exists() for i in range(3)))
        time.sleep(0.2)
        process.send_signal(number)
        process.wait(120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (-number, 130, 1)
    assert soon(lambda: not processes_below(work.parent) and not list(work.iterdir()))


IGNORED = """
import os, signal, sys, tempfile, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
from mpcc.runtime.parties.folders import environment, working_folder
child = "import signal, sys; sys.exit(3 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 4)"
with working_folder() as (work, watchdog):
    command = [sys.executable, "-c", child]
    process = watchdog.start(command, cwd=work, env=environment(), stdout=work / "stdout", stderr=work / "stderr")
    print(process.wait(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""


def test_parties_of_a_background_job_can_be_interrupted(work):
    """The job itself ignores SIGINT, as whoever started it so wants; what it starts does not."""
    env = {**os.environ, "TMPDIR": str(work)}
    done = subprocess.run([sys.executable, "-c", IGNORED], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", "True"], done.stderr
