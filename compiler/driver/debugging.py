"""What a compilation tells its developers: how long each pass took."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from mpcc.passes.manager import Time


def print_times(times: Mapping[str, Time]) -> None:
    """A table on stderr, in the order in which passes and steps first ran."""
    table = Table("pass or step", title="CPU seconds", title_justify="left")
    for column in ("runs", "seconds", "verifying"):
        table.add_column(column, justify="right")
    for name, time in times.items():
        table.add_row(name, str(time.runs), f"{time.seconds:.3f}", f"{time.verifying:.3f}")
    totals = (sum(t.seconds for t in times.values()), sum(t.verifying for t in times.values()))
    table.add_row("together", "", *(f"{total:.3f}" for total in totals))
    Console(file=sys.stderr, width=None if sys.stderr.isatty() else 100, highlight=False).print(table)
