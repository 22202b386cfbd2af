"""What a compilation tells its developers: how long each pass took."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mpcc.passes.manager import Time

_ROW = "{:<24}{:>6}{:>10}{:>11}"


def print_times(times: Mapping[str, Time]) -> None:
    """A table on stderr, in the order in which passes and steps first ran; plain, since no terminal is known here."""
    lines = ["CPU seconds", _ROW.format("pass or step", "runs", "seconds", "verifying")]
    lines += [_ROW.format(n, t.runs, f"{t.seconds:.3f}", f"{t.verifying:.3f}") for n, t in times.items()]
    totals = (sum(t.seconds for t in times.values()), sum(t.verifying for t in times.values()))
    lines.append(_ROW.format("together", "", *(f"{total:.3f}" for total in totals)))
    print("\n".join(lines), file=sys.stderr)
