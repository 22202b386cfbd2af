"""docs/fuzzing.md, as the suite writes it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.harness import MEMORY, SECONDS, Tally

PAGE = """# Fuzzing

Written by `make fuzz` (`python -m tests.fuzz --cases {cases} --seed {seed} --report docs/fuzzing.md`).

Every reader of a file or message that somebody else wrote is fed changed copies of an honest one: bits, bytes,
deletions, insertions, copies, swapped lines, extreme numbers, values of JSON of another type or place, deep nesting and
changes along the grammar of the IRs (attributes, shapes, operands, operations, rounds of loops, who receives an output,
one output more). Digests and fingerprints are repaired after the change: the author of the file is the enemy. A case
follows from the reader's name, the seed and its number alone.

A file may be *refused*, with one line of printable text (exit code 2 or 3), or *accepted*. Everything else is *bad*:
another exception, a line with control characters, more than {seconds} s of computing, more than {memory} MB of address
space beyond what Python and its libraries take at the start. The most memory that was resident in any
process was {resident:.0f} MB, libraries included.

{table}
* inspect, run, party, party on spu: what is done with the program of which one file is changed. *run* is the emulator,
  *party* everything that each role does before it opens a connection.
* What is accepted is a file that says something else and is still a program, an input, a recipe. What a changed program
  may do is limited by other means: see [security](security.md).
* `tests/fuzz/mutate.py` has the changes, `readers.py` the readers, `corpus.py` files that once gave a reader trouble.
  `python -m tests.fuzz --only "NAME" --case NUMBER --write FILE` writes the file of one case.
"""


def page(tallies: Mapping[str, Tally], seed: int, cases: int) -> str:
    """The page as Markdown."""
    resident = max(t.bytes for t in tallies.values()) / 1e6
    return PAGE.format(
        cases=cases, seed=seed, seconds=SECONDS, memory=MEMORY >> 20, resident=resident, table=table(tallies)
    )


def table(tallies: Mapping[str, Tally]) -> str:
    """A row for each reader, and their sum."""
    rows = ["| reader | tried | refused | accepted | bad |", "|---|---:|---:|---:|---:|"]
    for name, t in tallies.items():
        rows.append(f"| {name} | {t.tried:,} | {t.refused:,} | {t.accepted:,} | {len(t.bad)} |")
    tried, refused, accepted = (sum(getattr(t, k) for t in tallies.values()) for k in ("tried", "refused", "accepted"))
    bad = sum(len(t.bad) for t in tallies.values())
    return "\n".join([*rows, f"| **all** | {tried:,} | {refused:,} | {accepted:,} | {bad} |"]) + "\n"
