"""`mpcc doctor` on fake installations of MP-SPDZ."""

from __future__ import annotations

import datetime
import json
from collections import namedtuple

import pytest

from mpcc import doctor
from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.doctor import examine
from mpcc.runtime.parties.keys import fingerprint, make_identity
from tests.bundle import tiny_programs as tiny
from tests.runtime.fake_home import make_home


@pytest.fixture(autouse=True)
def no_spu(monkeypatch):
    """Also where it is installed."""
    monkeypatch.setattr("mpcc.runtime.spu.protocols.PACKAGE", "no-such-package")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fake MP-SPDZ with the party program of `ring` only."""
    folder = make_home(tmp_path / "spdz")
    monkeypatch.setenv("MP_SPDZ_HOME", str(folder))
    return folder


def by_check(lines):
    return {line.check: line for line in lines}


def hosts_file(folder, **validity):
    """hosts.toml with one certificate per role, valid for so long."""
    parts = []
    for i, (role, span) in enumerate(validity.items()):
        identity = make_identity(i, span)
        (folder / f"{role}.pem").write_bytes(identity.certificate)
        (folder / f"{role}.key").write_bytes(identity.key)
        (folder / f"{role}.key").chmod(0o600)
        parts.append(
            f'[{role}]\nhost = "127.0.0.1"\nport = {5000 + i}\ncertificate = "{role}.pem"\n'
            f'fingerprint = "{fingerprint(identity.certificate)}"\n'
        )
    (folder / "hosts.toml").write_text("\n".join(parts))
    return folder / "hosts.toml"


def test_a_complete_machine(home):
    lines = by_check(examine())
    assert not [line for line in lines.values() if line.status == "fail"]
    assert lines["MP-SPDZ"].found == f"0.4.2 at {home}"
    assert lines["protocol ring"].status == "ok" and lines["protocol semi2k"].status == "warn"
    assert "make -C" in lines["protocol semi2k"].todo
    assert lines["torch"].status == lines["loopback"].status == lines["engine emulator"].status == "ok"


def test_every_line_that_is_not_ok_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    lines = examine(tiny.prefix_program(), hosts=tmp_path / "none.toml")
    assert all(line.todo for line in lines if line.status != "ok")
    assert by_check(lines)["MP-SPDZ"].status == by_check(lines)["hosts"].status == "fail"


@pytest.mark.parametrize("program", [None, "ring", "semi2k"])
def test_one_secure_engine_is_enough(home, monkeypatch, program):
    """What the others lack is a warning then, whichever it is; the emulator does not count."""
    monkeypatch.setattr("mpcc.runtime.spu.protocols.installed_version", lambda: "0.0")
    it = None if program is None else tiny.prefix_program()
    monkeypatch.setattr(type(tiny.prefix_program()), "protocol", program)
    both = program != "semi2k"
    assert by_check(examine(it))["secure engines"].found == ("mp-spdz and spu are ready" if both else "spu is ready")
    assert not [line for line in examine(it) if line.status == "fail"]
    monkeypatch.delenv("MP_SPDZ_HOME")
    lines = by_check(examine(it))
    assert lines["MP-SPDZ"].status == "warn" and lines["secure engines"].found == "spu is ready"
    monkeypatch.undo()
    monkeypatch.setattr("mpcc.runtime.spu.protocols.PACKAGE", "no-such-package")
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    lines = by_check(examine())
    assert lines["engine spu"].status == lines["MP-SPDZ"].status == lines["secure engines"].status == "fail"
    assert lines["engine emulator"].status == "ok" and "mp-spdz, spu" in lines["secure engines"].todo


def test_an_old_mp_spdz(tmp_path, monkeypatch):
    monkeypatch.setenv("MP_SPDZ_HOME", str(make_home(tmp_path / "old", version="0.3.0")))
    line = by_check(examine())["MP-SPDZ"]
    assert line.status == "fail" and "too old" in line.found and "newer" in line.todo


def test_the_program_decides_which_party_program_is_needed(home, monkeypatch):
    (home / "replicated-ring-party.x").chmod(0o600)
    line = by_check(examine(tiny.prefix_program()))["protocol ring"]
    assert line.status == "fail" and "cannot be executed" in line.found
    monkeypatch.setattr(type(tiny.prefix_program()), "protocol", "semi2k")
    lines = by_check(examine(tiny.prefix_program()))
    assert lines["protocol ring"].status == "warn" and lines["protocol semi2k"].status == "fail"


def test_memory_and_disk(home, monkeypatch):
    program = tiny.prefix_program()
    lines = by_check(examine(program))
    assert lines["memory"].status == "ok"
    need = doctor.ring_elements(program) * 16 * 3
    assert program.bundle.manifest.private_elements * 48 < need < 1e9
    monkeypatch.setattr(doctor, "_free_memory", lambda: need + 1)
    assert by_check(examine(program))["memory"].status == "warn"
    monkeypatch.setattr(doctor, "_free_memory", lambda: need - 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10, 0, 10))
    lines = examine(program)
    assert [line.check.split()[0] for line in lines if line.status == "fail"] == ["memory", "disk"]


def test_certificates(home, tmp_path):
    days = datetime.timedelta(days=1)
    path = hosts_file(tmp_path, client=90 * days, provider=2 * days, helper=-days / 2)
    lines = by_check(examine(hosts=path))
    states = [lines[f"certificate of the {role}"].status for role in ("client", "provider", "helper")]
    assert states == ["ok", "warn", "fail"] and "expired" in lines["certificate of the helper"].found
    assert not any(check.startswith("key") for check in lines)
    (tmp_path / "client.key").chmod(0o644)
    (tmp_path / "provider.pem").write_text("nonsense")
    (tmp_path / "helper.pem").unlink()
    lines = by_check(examine(hosts=path))
    assert lines["key of the client"].status == "fail" and "chmod 600" in lines["key of the client"].todo
    assert "is not a certificate" in lines["certificate of the provider"].found
    assert "cannot read" in lines["certificate of the helper"].found


def test_fingerprints(home, tmp_path):
    """A certificate that was exchanged on the way, and one whose fingerprint nobody gave."""
    path = hosts_file(tmp_path, **dict.fromkeys(("client", "provider", "helper"), datetime.timedelta(days=90)))
    (tmp_path / "provider.pem").write_bytes(make_identity(1).certificate)
    text = path.read_text()
    path.write_text(text[: text.rindex("fingerprint")])
    lines = by_check(examine(hosts=path))
    states = [lines[f"certificate of the {role}"].status for role in ("client", "provider", "helper")]
    assert states == ["ok", "fail", "fail"]
    found = lines["certificate of the provider"].found
    assert fingerprint((tmp_path / "provider.pem").read_bytes()) in found
    assert "no fingerprint" in lines["certificate of the helper"].found


@pytest.mark.parametrize("text", ["= nonsense", "", "[client]\nport = 1\n"])
def test_hosts_that_cannot_serve(home, tmp_path, text):
    (tmp_path / "hosts.toml").write_text(text)
    assert by_check(examine(hosts=tmp_path / "hosts.toml"))["hosts"].status == "fail"


def test_packages(home, monkeypatch):
    def version(name):
        if name == "peft":
            raise doctor.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "torch" else "99.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    lines = by_check(examine())
    assert lines["peft"].status == lines["torch"].status == "fail" and lines["numpy"].status == "ok"
    assert lines["torch"].todo.startswith("pip install 'torch>=")


def test_versions_compare_by_number():
    assert doctor.numbers_in("2.10.0+cpu") > doctor.numbers_in("2.9") and doctor.numbers_in("1.0rc1") == (1, 0)


def test_command(home, capsys, monkeypatch):
    assert cli.call(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "ok   MP-SPDZ: 0.4.2" in out and "warn protocol semi2k" in out and "-> build it" in out
    monkeypatch.setenv("MP_SPDZ_HOME", "/nowhere")
    monkeypatch.setattr(files, "load", lambda path: tiny.prefix_program())
    assert cli.call(["doctor", "p.mpc", "--json"]) == 1
    table = json.loads(capsys.readouterr().out)
    assert table["ok"] is False and {c["check"] for c in table["checks"]} >= {"MP-SPDZ", "memory", "loopback"}
    assert all(set(c) == {"check", "status", "found", "todo"} for c in table["checks"])
