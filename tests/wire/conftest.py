"""Makes `import by_hand` and its like work: they belong to the tests, not to mpcc."""

import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (
    HERE.parent,
    HERE.parent / "runtime",
    HERE.parent / "bundle",
    HERE.parent / "spu",
    HERE.parent / "parties",
    HERE,
):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder in which everything runs; afterwards no process does."""
    from fake_home import processes_below, soon

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert soon(lambda: not processes_below(tmp_path))
