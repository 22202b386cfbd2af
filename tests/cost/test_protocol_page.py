"""docs/protocols.md says of every protocol what the program says."""

from pathlib import Path

import pytest

from mpcc.compiler.protocols import PROTOCOLS

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_security_in_plain_words(name):
    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"| `{name}` | {PROTOCOLS[name].security} |" in text
