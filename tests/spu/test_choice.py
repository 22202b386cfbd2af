"""Which engine `mpcc run` takes, and what it says about it."""

from __future__ import annotations

import pytest

from mpcc.compiler.errors import MpccError
from mpcc.engine_choice import choose_engine


@pytest.fixture
def spu_version(monkeypatch):
    monkeypatch.setattr("mpcc.runtime.spu.protocols.installed_version", lambda: "0.0")


def test_mp_spdz_goes_first(monkeypatch, spu_version, tmp_path):
    (tmp_path / "compile.py").touch()
    (tmp_path / "CHANGELOG.md").write_text("## 9.9.9\n")
    monkeypatch.setenv("MP_SPDZ_HOME", str(tmp_path))
    engine, why = choose_engine(None)
    assert (engine.name, why) == ("mp-spdz", f"MP_SPDZ_HOME is {tmp_path}")


def test_spu_without_mp_spdz(monkeypatch, spu_version, tmp_path):
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    engine, why = choose_engine(None)
    assert engine.name == "spu" and "does not say where MP-SPDZ is" in why and "SPU 0.0" in why
    monkeypatch.setenv("MP_SPDZ_HOME", str(tmp_path))
    engine, why = choose_engine(None)
    assert engine.name == "spu" and "cannot be used" in why


def test_the_emulator_only_when_asked_for(monkeypatch):
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    monkeypatch.setattr("mpcc.runtime.spu.protocols.PACKAGE", "no-such-package")
    engine, why = choose_engine("emulator")
    assert engine.name == "emulator" and not engine.secure and not why
    with pytest.raises(MpccError, match="no secure engine"):
        choose_engine(None)
