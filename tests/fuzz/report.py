"""docs/fuzzing.md, as the suite writes it."""

from __future__ import annotations

from tests.fuzz.harness import MEMORY, SECONDS, Tally, table


def page(tallies: dict[str, Tally], seed: int) -> str:
    return table(tallies)
