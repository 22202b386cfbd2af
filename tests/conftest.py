"""Options and paths for all tests: `import standin` and `import harness` work everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files in tests/golden instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """compare(name, text): `text` must be tests/golden/<name>; --update-golden writes it."""

    def compare(name: str, text: str) -> None:
        path = HERE / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, "utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text("utf-8"), f"{name} changed: if that is meant, run pytest --update-golden"

    return compare
