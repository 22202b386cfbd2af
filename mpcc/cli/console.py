"""What the commands write to the terminal: results to stdout, progress and notes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def terminal(*, stderr: bool = False) -> Console:
    """A console that keeps tables readable in files and pipes."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 140, highlight=False, soft_wrap=False)


def note(text: str) -> None:
    """What a user should know although nothing is wrong."""
    print(f"mpcc: note: {text}", file=sys.stderr, flush=True)


@contextmanager
def stages(total: int, *, silent: bool = False) -> Iterator[Callable[[str], None]]:
    """A progress bar that is told the name of each stage; none where nobody looks at it."""
    if silent or not sys.stderr.isatty():
        yield lambda name: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal(stderr=True), transient=True) as progress:
        task = progress.add_task("start", total=total)

        def stage(name: str) -> None:
            progress.update(task, description=name, advance=1)

        yield stage
