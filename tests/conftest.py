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
settings.register_profile("here", deadline=None)  # no test measures time
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing with it")


# Marks of tests that start the parties of a secure engine: two such tests at a time would fight over the machine.
WHOLE_MACHINE = ("mp_spdz", "spu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests run in one process where several share the work (`-n 2 --dist loadgroup`).

    Tests that read the same compiled programs do, so that each program is compiled once.
    """
    for item in items:
        shared = "tests.bundle.tiny_programs" in (getattr(v, "__name__", "") for v in vars(item.module).values())
        if any(item.get_closest_marker(mark) for mark in WHOLE_MACHINE):
            item.add_marker(pytest.mark.xdist_group("parties"))
        elif shared:
            item.add_marker(pytest.mark.xdist_group("tiny programs"))


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
