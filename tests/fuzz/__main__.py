"""`make fuzz`: change files by the thousand, feed them to their readers, print and write what became of them.

python -m tests.fuzz --cases 100000 --seed 0 --report docs/fuzzing.md
python -m tests.fuzz --only ring.ir --cases 2000            # one reader, or those whose name has this in it
python -m tests.fuzz --only "ring.ir of stack: run" --case 17 --write file     # the file of one case
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.readers import READERS
from tests.fuzz.report import page, table


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("--cases", type=int, default=100_000, help="of all readers together")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="readers whose name has this in it")
    options.add_argument("--jobs", type=int, default=2, help="readers that are tried at a time")
    options.add_argument("--report", type=Path, help="write the page there")
    options.add_argument("--case", type=int, help="one case only, with --write")
    options.add_argument("--write", type=Path, help="write the file of the case there")
    chosen = options.parse_args()
    readers = [r for r in READERS if chosen.only in r.name]
    if not readers:
        sys.exit(f"no reader has {chosen.only!r} in its name; there are:\n  " + "\n  ".join(r.name for r in READERS))
    if chosen.case is not None:
        content = harness.content_of(readers[0], chosen.seed, chosen.case)
        if chosen.write is not None:
            chosen.write.write_bytes(content)
        print(harness.outcome_of(readers[0], content))
        return 0
    share = sum(r.share for r in readers)
    counts = [max(20, math.ceil(chosen.cases * r.share / share)) for r in readers]
    tallies = {}
    for reader, tally in harness.all_apart(readers, counts, chosen.seed, chosen.jobs):
        tallies[reader.name] = tally
        print(
            f"{reader.name}: {tally.tried} tried, {tally.refused} refused, {tally.accepted} accepted, "
            f"{len(tally.bad)} bad; slowest {tally.slowest:.2f} s, {tally.bytes / 1e6:.0f} MB",
            flush=True,
        )
        for case, what in tally.bad[:5]:
            print(f"  case {case}: {what}", flush=True)
    print("\n" + table(tallies))
    if chosen.report is not None:
        chosen.report.write_text(page(tallies, chosen.seed, chosen.cases), "utf-8")
    return 1 if any(t.bad for t in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
