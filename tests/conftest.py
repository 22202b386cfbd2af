"""Options and paths for all tests: `import standin` and `import harness` work everywhere."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# A landing is judged on the same examples every time; developers' runs keep looking for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing with it")


_LONG = re.compile(r"\d{7,}|\d+\.\d{4,}(?:e[+-]?\d+)?")


def rounded(text: str) -> str:
    """`text` with long numbers cut to six digits: fitted coefficients differ in the last ones between machines."""
    return _LONG.sub(lambda match: f"{float(match[0]):.6g}", text)


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """compare(name, text): `text` must be tests/golden/<name>; --update-golden writes it."""

    def compare(name: str, text: str) -> None:
        text = rounded(text)
        path = HERE / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, "utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text("utf-8"), f"{name} changed: if that is meant, run pytest --update-golden"

    return compare
