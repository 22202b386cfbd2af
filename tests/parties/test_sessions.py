"""Provisioning and sessions with a stand-in for MP-SPDZ: what is stored, what is refused, and what is left of it."""

import itertools
import json
import shutil
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_home import make_home, processes_below, soon

from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz import session
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.session import provision, serve
from mpcc.runtime.mp_spdz.state import check_weights
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.parties.site import local_site

ROLES = ("client", "provider", "helper")
ENOUGH = Limits(start=60.0, idle=30.0)  # for a busy machine
NONE = np.zeros(0, np.int64)
WEIGHTS = np.array([7], np.int64)
PROGRAM = Emitted("x = 1\n", "ring", "layout", NONE, 1, 2, (("y", 1), ("z", 1)))
REQUESTS = [np.array(pair, np.int64) for pair in ((1, -2), (3, 4))]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")


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


@pytest.fixture
def home(work):
    return make_home(work.parent / "home", "session()")


@pytest.fixture
def state(work, home):
    folder = work.parent / "state"
    provision(PROGRAM, WEIGHTS, folder, home=home, limits=ENOUGH)
    return folder


def run(home, state=None, requests=REQUESTS, program=PROGRAM, limits=ENOUGH, **options):
    weights = None if state is not None else WEIGHTS
    return serve(program, requests, weights=weights, state=state, home=home, limits=limits, **options)


def values(served):
    return [{name: value.tolist() for name, value in answer.items()} for answer in served.answers]


EXPECTED = [{"y": [1], "z": [-2]}, {"y": [3], "z": [4]}]


# ** what works **
@pytest.mark.parametrize("stored", [True, False])
def test_a_session(home, state, stored):
    """One start of the parties, two answers, each as it comes, each with what it alone cost."""
    seen = []
    served = run(home, state if stored else None, on_answer=lambda number, answer: seen.append(number))
    assert values(served) == EXPECTED and seen == [0, 1]
    assert [m.bytes_by_party for m in served.measured] == [(1, 1, 1)] * 2
    assert [m.input_bytes for m in served.measured] == [21, 21]
    assert [m.control_bytes for m in served.measured] == [15, 15] and served.control_bytes == 45
    assert [m.provisioning_bytes for m in served.measured] == [0, 0]
    assert (served.compile_seconds > 0) is not stored


def test_requests_are_made_as_they_are_answered(home, state):
    """A request may depend on the answer before."""
    answers = []

    def requests():
        yield REQUESTS[0]
        while not answers:
            time.sleep(0.01)
        yield answers[0]["y"].repeat(2) + 1

    served = run(home, state, requests(), on_answer=lambda number, answer: answers.append(answer))
    assert values(served)[1] == {"y": [2], "z": [2]}


def test_a_state_is_the_owners_alone(state):
    for role, player in zip(ROLES, itertools.count()):
        assert (state / role).stat().st_mode & 0o777 == 0o700
        shares = state / role / "Persistence" / f"Transactions-P{player}.data"
        assert shares.stat().st_mode & 0o777 == 0o600
        manifest = state / role / "state.json"
        assert manifest.stat().st_mode & 0o777 == 0o600
        assert bool(json.loads(manifest.read_text())["weights"]) is (role == "provider")
    assert sorted(p.name for p in state.iterdir()) == sorted(ROLES)


def test_provisioning_again_compiles_nothing(home, state):
    done = provision(PROGRAM, WEIGHTS + 1, state, home=home, limits=ENOUGH)
    assert not done.compiled and (done.values, done.bytes) == (1, 6)
    other = provision(replace(PROGRAM, source="x = 2\n"), WEIGHTS, state, home=home, limits=ENOUGH)
    assert other.compiled


# ** what is refused **
def spoil_shares(state):
    path = state / "helper" / "Persistence" / "Transactions-P2.data"
    path.write_bytes(path.read_bytes()[:-16])


def change_shares(state):
    path = state / "helper" / "Persistence" / "Transactions-P2.data"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def change_byte_code(state):
    next((state / "provider" / "Programs" / "Bytecode").iterdir()).write_text("another program")


@pytest.mark.parametrize(
    "spoil, match",
    [
        (spoil_shares, r"file of shares is truncated: 40 bytes, 56 for 2 shares.*helper.*provision again"),
        (change_shares, "file of shares is corrupt.*helper"),
        (lambda state: (state / "client/Persistence/Transactions-P0.data").unlink(), "file of shares is missing"),
        (change_byte_code, "byte code is not this program's.*provider"),
        (lambda state: (state / "helper/state.json").write_text("{"), "state is corrupt.*helper"),
        (lambda state: (state / "helper/state.json").unlink(), "helper has no stored shares"),
        (lambda state: shutil.copy(state / "client/state.json", state / "helper/state.json"), "the client's, not the"),
    ],
)
def test_a_spoilt_state(home, state, spoil, match):
    spoil(state)
    with pytest.raises(EngineError, match=match):
        run(home, state)
    provision(PROGRAM, WEIGHTS, state, home=home, limits=ENOUGH)
    assert values(run(home, state)) == EXPECTED


@pytest.mark.parametrize("change", [{"source": "x = 2\n"}, {"layout": "other"}, {"private_elements": 2}])
def test_a_state_of_another_program(home, state, change):
    with pytest.raises(EngineError, match="belongs to another program"):
        run(home, state, program=replace(PROGRAM, **change))


def test_a_state_of_another_mp_spdz(home, state):
    (home / "CHANGELOG.md").write_text("## 0.4.3\n")
    with pytest.raises(EngineError, match=r"made with MP-SPDZ 0\.4\.2, here is 0\.4\.3"):
        run(home, state)


def test_shares_of_other_weights(state):
    """Before a fine-tune is provisioned, its program refuses the shares of the one before."""
    check_weights(state, WEIGHTS)
    with pytest.raises(EngineError, match=r"shares are of other weights.*provision again"):
        check_weights(state, WEIGHTS + 1)


def test_weights_of_another_program(work, home):
    with pytest.raises(EngineError, match="provider has 2 weights, the program takes 1"):
        provision(PROGRAM, np.zeros(2, np.int64), work.parent / "state", home=home)


def test_a_request_of_another_program(home, state):
    with pytest.raises(EngineError, match="a request has 3 ring elements, the program takes 2"):
        run(home, state, [np.zeros(3, np.int64)])


def test_an_error_while_a_request_is_made(home, state):
    def requests():
        yield REQUESTS[0]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run(home, state, requests())
    assert values(run(home, state)) == EXPECTED


# ** what fails; the table in tests/faults has the rest **
@pytest.mark.parametrize("name", ["write_private", "compile_source"])
def test_the_disk_is_full(home, state, monkeypatch, name):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, name, full)
    with pytest.raises(EngineError, match="No space left on device"):
        run(home)
    monkeypatch.undo()


def test_the_port_is_in_use(work, state):
    """Another process has the public port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = local_site(ROLES)
        site = replace(
            one,
            identities={"client": one.identities["client"]},
            addresses=(f"127.0.0.1:{port}", "127.0.0.1:6002", "127.0.0.1:6003"),
        )
        with pytest.raises(EngineError, match=rf"the port cannot be used: .*; at 127\.0\.0\.1:{port}"):
            run(make_home(work.parent / "busy", "session()"), state, site=site)
