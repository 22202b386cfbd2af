"""Makes `import deployed`, `import tiny_programs` and their like work, and lends places to the tests."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (
    HERE.parent,
    HERE.parent / "runtime",
    HERE.parent / "bundle",
    HERE.parent / "parties",
    HERE.parent / "spu",
):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """The place of an engine; each is made once."""
    from tests.faults.place import opened

    made = {}

    def place(engine):
        if engine not in made:
            made[engine] = opened(tmp_path_factory.mktemp("place"), engine)
        return made[engine]

    return place
