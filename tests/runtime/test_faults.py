"""Whatever goes wrong: one clear error, no process left, no folder left, and the next run works. Without MP-SPDZ."""

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
from mpcc.runtime.parties import processes as parties
from mpcc.runtime.parties.processes import Limits

ENOUGH = Limits(start=60.0, idle=30.0)  # for a busy machine; what is expected to stall says how soon by itself
STALLS = Limits(start=60.0, idle=3.0)
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


# ** before the run **
def test_home_is_not_set(work, monkeypatch):
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    with pytest.raises(EngineError, match="MP_SPDZ_HOME is not set"):
        run_job(job())


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda home: home.rename(home.with_name("elsewhere")), "does not exist"),
        (lambda home: (home / "compile.py").unlink(), "compile.py is missing"),
        (lambda home: (home / "CHANGELOG.md").unlink(), "version of MP-SPDZ is unknown"),
        (lambda home: (home / "CHANGELOG.md").write_text("## 0.3.9 (2024)\n"), "MP-SPDZ 0.3.9 is too old"),
        (lambda home: (home / "replicated-ring-party.x").unlink(), "make -C .*home replicated-ring-party.x"),
        (lambda home: (home / "replicated-ring-party.x").chmod(0o644), "make -C"),
    ],
)
def test_unusable_home(work, monkeypatch, spoil, match):
    home = make_home(work.parent / "home")
    spoil(home)
    monkeypatch.setenv("MP_SPDZ_HOME", str(home))
    with pytest.raises(EngineError, match=match):
        run_job(job())


def test_unknown_protocol(work):
    fails(work, GOOD, "does not run the protocol 'mascot'", protocol="mascot")


def test_compile_error(work):
    message = fails(work, GOOD, "compiler refused the program: CompilerError", source="syntax error")
    assert "123456789012" not in message


# ** during the run **
@pytest.mark.parametrize("player, role", list(enumerate(["client", "provider", "helper"])))
def test_a_party_fails(work, player, role):
    failure = "say('Fatal: value 9876543210', sys.stderr); sys.exit(3)"
    behaviour = f"begin()\nif player == {player}: {failure}\ntime.sleep(60)"
    message = fails(work, behaviour, rf"the {role} failed \(exit code 3\); its last line: Fatal: value #")
    assert "9876543210" not in message


@pytest.mark.parametrize("player, role", list(enumerate(["client", "provider", "helper"])))
def test_a_party_is_killed(work, player, role):
    """The others notice and fail too; the killed one is named."""
    behaviour = (
        f"begin()\nif player == {player}: die()\n"
        "wait_for_a_death(); say('Fatal communication error', sys.stderr); sys.exit(1)"
    )
    fails(work, behaviour, f"the {role} was ended by SIGKILL")


def test_a_party_leaves_a_child_behind(work):
    fails(work, "subprocess.Popen(['sleep', '60'])\nbegin()\nsys.exit(1 if player == 1 else 0)", "the provider failed")


def test_a_party_ends_early_and_well(work):
    fails(work, "begin()\nif player: finish()", "the client received less than the program promises")


def test_a_party_does_not_report(work):
    fails(work, "begin()\nfinish() if player != 1 else None", "did not report what it sent; at party 1")


def test_parties_never_connect(work):
    waiting = "say('waiting', sys.stderr)\nwhile True: time.sleep(0.001)"
    fails(work, waiting, "did not connect within 1 s", Limits(start=1.0, idle=9.0))


def test_a_party_never_starts(work):
    fails(
        work, "os.kill(os.getpid(), signal.SIGSTOP) if player == 2 else time.sleep(60)", r"helper \(stopped\)", STALLS
    )


def test_nothing_happens(work):
    message = "no party made progress for 3 s; last line of the client: Starting timer 2"
    fails(work, "begin()\ntime.sleep(60)", message, STALLS)


def test_work_without_output_is_progress(work):
    behaviour = "begin()\nend = time.time() + 4\nwhile time.time() < end: pass\nfinish()"
    run_job(job(), home=make_home(work.parent / "home", behaviour), limits=STALLS)


def test_ports_are_taken_twice(work):
    behaviour = (
        "tries = record / f'tries{player}'\ntries.open('a').write(hosts[player] + '\\n')\n"
        "if player == 1 and len(tries.read_text().split()) < 3:\n"
        "    say('Binding to socket on host:1 failed (Address already in use)', sys.stderr); time.sleep(60)\n"
        "if player != 1: time.sleep(0.5)\n"
        "begin(); finish()"
    )
    home = make_home(work.parent / "home", behaviour)
    run_job(job(), home=home, limits=ENOUGH)
    tries = (home / "tries1").read_text().split()
    assert len(set(tries)) == 3 and all(t.startswith("127.0.0.1:") for t in tries)


def test_ports_are_always_taken(work):
    behaviour = "say('Binding to socket on host:1 failed (Address already in use)', sys.stderr); time.sleep(60)"
    fails(work, behaviour, f"no free port for the parties in {parties.PORT_ATTEMPTS} attempts")


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
