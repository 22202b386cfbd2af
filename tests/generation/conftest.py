"""Makes `import decoders` and its like work, and the programs that the tests share."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE.parent, HERE.parent / "runtime", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def frozen_llama(tmp_path_factory):
    from decoders import made

    return made("llama", tmp_path_factory.mktemp("base"))
