"""docs/reliability.md, written from the table of faults: `python -m tests.faults.report`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from tests.faults import conftest  # noqa: F401  finds the helpers of other tests
from tests.faults.fault import End, Fault, Stage
from tests.faults.table import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = """# What happens when something goes wrong

This page is written by the suite of faults (`make faults`); do not edit it. Each of the {count} rows below is a test in
`tests/faults`, in which real processes run and one thing goes wrong. After each of them all of this must be true:

- every process ends with the exit code that the row says (0 done, 2 the user's mistake, 3 an engine or party failed,
  130 interrupted, 143 ended by SIGTERM; "killed" is a process that got SIGKILL itself);
- who ends with an error says so in one line, of which the row quotes a part, and never with a traceback;
- no process is left, and no working folder;
- no input, answer or weight stands in another party's files, nor in anything that was said;
- the next run, with the folders as the fault left them, works. Where the fault is a file that was changed by hand, the
  file is repaired first.

Engines: `ring`, `dealer-ring` and `semi2k` are protocols of a real MP-SPDZ, each with one `mpcc party` process per role
and mpcc's tunnel between them; `spu` is SecretFlow SPU, in the same way; `stand-in` is a script in the place of
MP-SPDZ, which behaves as the row says or is not reached at all.

| engine | faults |
|---|---|
{engines}
"""
KILLED = -9


def page() -> str:
    """The whole page."""
    engines = {engine: sum(f.engine == engine for f in FAULTS) for engine in dict.fromkeys(f.engine for f in FAULTS)}
    head = HEAD.format(count=len(FAULTS), engines="\n".join(f"| {name} | {n} |" for name, n in engines.items()))
    return head + "".join(_section(stage, list(rows)) for stage, rows in groupby(FAULTS, key=lambda f: f.stage))


def _section(stage: Stage, faults: Iterable[Fault]) -> str:
    lines = "".join(f"| {f.name} | {f.engine} | {_ends(f)} |\n" for f in faults)
    return f"\n## {stage.capitalize()}\n\n| fault | engine | how it ends |\n|---|---|---|\n{lines}"


def _ends(fault: Fault) -> str:
    """Who ends how; those that end alike are said once."""
    alike: dict[End, list[str]] = {}
    for who, end in fault.ends.items():
        alike.setdefault(end, []).append(who)
    return "; ".join(f"{', '.join(who)}: {_end(end)}" for end, who in alike.items())


def _end(end: End) -> str:
    if end.code == KILLED:
        return "killed"
    words = re.sub(r"\\", "", end.says).replace(".*", " … ")
    return f"{end.code}, " + " or ".join(f"“{w}”" for w in words.split("|")) if words else str(end.code)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
