"""What a role's folder holds for SPU, and what is shown and refused. No engine needed."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.compiler.errors import MpccError
from mpcc.engine_choice import check_provisioning
from mpcc.loading import load
from mpcc.report.session import session_json, show_session
from mpcc.runtime.deployment import deployment_of
from mpcc.runtime.engine import Measured, Served
from mpcc.runtime.parties.processes import Party
from mpcc.runtime.spu.code import code_of
from mpcc.runtime.spu.folders import LOG_LINE
from mpcc.split import split_program
from tests.bundle import tiny_programs as tiny


# ** a role's part **
@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    tiny.prefix_program().save(folder / "prog.mpc")
    return {p.parent.name: p for p in split_program(folder / "prog.mpc", folder, ("client", "provider", "helper"))}


def test_every_role_makes_the_same_program(parts):
    shared = deployment_of(tiny.prefix_program().bundle)
    for path in parts.values():
        assert code_of(load(path, ()).deployment()) == code_of(shared)


# ** what is shown **
ROLES = ("client", "provider", "helper")
SERVED = Served(
    "spu",
    "aby3",
    ROLES,
    answers=({}, {}),
    measured=tuple(Measured("spu", (n, 2000, 30), (4, 5, 6), 1.5, 0, 0.0, 70, 0.0, 2) for n in (100, 300)),
    players=(0, 1, 2),
    weights_bytes=900,
    weights_seconds=0.5,
    compile_seconds=0.25,
)


def shown(served):
    console = Console(file=io.StringIO(), width=80)
    show_session(console, served, tiny.prefix_program().cost())
    return console.file.getvalue()


def test_a_session_is_shown_without_an_estimate_beside_it():
    """MP-SPDZ's estimate stands apart and says whose it is."""
    cost = tiny.prefix_program().cost()
    lines = shown(SERVED).splitlines()
    rows = {line[:34].strip(): line[34:].split() for line in lines}
    assert rows["bytes sent by the client"] == ["200", "400"] and rows["bytes sent by all"] == ["2,230", "4,460"]
    assert rows["messages of the busiest party"] == ["6", "12"] and rows["seconds"] == ["1.50", "3.00"]
    assert rows["bytes to share the weights"] == ["0", "900"]
    assert "no estimate for spu" in lines[-1] and f"mp-spdz (ring): {cost.bytes_online:,} bytes" in lines[-1]
    assert f"{cost.bytes_online:,}" not in "".join(lines[:-1]) and "estimated" not in session_json(SERVED, cost)


def test_the_helper_shows_its_own_numbers_only():
    json.dumps(session_json(SERVED, tiny.prefix_program().cost(), "helper"))
    measured = (Measured("spu", (30,), (6,), 1.5, 0, 0.0, 70, 0.0),)
    alone = replace(SERVED, answers=({},), measured=measured, players=(2,))
    assert "bytes sent by the helper" in shown(alone) and "by all" not in shown(alone)


# ** why a party failed **
LOG = """I1128 03:13:28.677911 26298 4294969856 external/brpc~/src/brpc/socket.cpp:2594 CheckHealth] Checking Socket
[2026-11-28 03:13:28.677] [info] [thread_pool.cc:30] Create a fixed thread pool
"""


def test_the_engines_own_log_is_no_reason(tmp_path):
    """Whether it stands before the reason, behind it, or alone."""
    party = Party(2, "helper", tmp_path, [], LOG_LINE)
    (tmp_path / "stdout").write_text("Starting timer: connected\n")
    for said in (f"{LOG}\nthe cause\n", f"\nthe cause\n{LOG}", f"{LOG}\nthe cause\n{LOG * 99}"):
        (tmp_path / "stderr").write_text(said)
        assert party.last_line() == "the cause"
    (tmp_path / "stderr").write_text(LOG)
    assert party.last_line() == "Starting timer: connected"
    (tmp_path / "stderr").write_text("Errors are [not] dates: W1128\n")
    assert party.last_line() == "Errors are [not] dates: W1128"


# ** what is refused **
def test_nothing_is_stored(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("mpcc.runtime.spu.protocols.installed_version", lambda: "0.0")
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    for engine in ("spu", None):
        with pytest.raises(MpccError, match=r"spu stores no shares.*once in every session"):
            check_provisioning(engine)
    monkeypatch.setattr(files, "load", lambda path: tiny.prefix_program())
    (tmp_path / "in.json").write_text("{}")
    arguments = ["run", "prog.mpc", "--input", str(tmp_path / "in.json"), "--engine", "spu", "--state", "state"]
    assert cli.call(arguments) == 2
    assert "the spu engine stores no shares" in capsys.readouterr().err
