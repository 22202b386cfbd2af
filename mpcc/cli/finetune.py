"""The command `mpcc finetune`: a recipe becomes a model folder that `mpcc compile --base` takes, and a report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mpcc.cli.console import terminal

if TYPE_CHECKING:
    from mpcc.marill.training import Progress as Report


def finetune_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a TOML file; see docs/marill.md.")],
    out: Annotated[Path, typer.Option("-o", "--out", readable=False, help="The model folder to write.")],
    base: Annotated[Path | None, typer.Option(help="Open checkpoint, instead of the one in the recipe.")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Fine-tune a model for cheap secure inference; started again after an interruption, it goes on."""
    from mpcc.marill.finetune import finetune
    from mpcc.marill.recipe import read_recipe

    read = read_recipe(recipe, base)
    _quiet()
    with _bars() as progress:
        report = finetune(read, out, progress)
    console = terminal()
    done = "adapter" if report.kind == "adapter" else "model"
    console.print(f"wrote the {done} {out}, with report.md in it", markup=False)
    for name, score in report.scores.items():
        right = "" if score.accuracy is None else f", {score.accuracy:.1%} right"
        console.print(f"{name}: loss {score.loss:.4f}{right}", markup=False)
    peft = " --peft" if report.kind == "adapter" else ""
    console.print(f"next: mpcc compile {out}{peft} --base {read.base} ...", markup=False)


def _quiet() -> None:
    """No progress bars and reports of transformers between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


@contextmanager
def _bars() -> Iterator[Report]:
    """One bar for each stage; where nobody looks at them, one line for each stage."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in seen:
                seen.add(stage)
                print(f"mpcc: {stage}, {total} steps", file=sys.stderr)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
