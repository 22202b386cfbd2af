"""Everything here needs SPU; without the wheel it is skipped, except what is marked otherwise."""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE.parent / "bundle", HERE.parent / "runtime", HERE.parent / "parties", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # tiny_programs, fake_home, deployed, in_process


def _missing() -> bool:
    try:
        importlib.metadata.version("spu")
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _missing():
        reason = pytest.mark.skip(reason="SPU is not installed: pip install mpcc[spu]")
        for item in items:
            if item.get_closest_marker("spu"):
                item.add_marker(reason)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Working folders go below tmp_path; afterwards none is left, and no process of one."""
    from spu_jobs import parties_below

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.glob("mpcc-*")) == []
    assert parties_below(tmp_path) == {}
