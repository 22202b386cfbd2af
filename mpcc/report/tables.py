"""Tables as the command line shows them."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table


def table_of(title: str, *columns: str) -> Table:
    """Numbers stand right: every column whose name is among the known numeric ones."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numeric = {
        "tensors",
        "bytes",
        "MB",
        "count",
        "elements",
        "rounds",
        "operations",
        "estimated",
        "measured",
        "seconds",
        "source",
        "bits at most",
        "as coded",
    }
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    return table


def add(table: Table, *cells: object) -> None:
    """A row of anything that has a text; signs of markup in it stay what they are."""
    table.add_row(*(escape(str(c)) for c in cells))
