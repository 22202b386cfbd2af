"""Marill's techniques, each alone and all together, against standard fine-tuning: accuracy and cost.

    python -m benchmarks.marill train             # minutes to hours; whatever is there already is kept
    python -m benchmarks.marill cost              # compiles, estimates, and runs where that takes minutes
    python -m benchmarks.marill tables            # docs/marill-tables.md and the plot from what is there

Everything lies in `build/marill`, so that each step can be interrupted and started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.marill_costs import PROTOCOLS, checked, estimated, measured
from benchmarks.marill_tasks import TASKS
from benchmarks.marill_variants import VARIANTS, Trainer, record_of

ROWS = {"films": 1500, "news": 800}
MAIN, ALONE = ("standard", "all", "all-5"), ("freeze", "lora", "merge", "approximate")
CURVE = ("freeze-1", "freeze-2", "freeze-3", "freeze-5", "freeze-6")
app = typer.Typer(add_completion=False, help=__doc__)
console = Console()


def planned(seeds: int) -> list[tuple[str, str, int]]:
    """(task, variant, seed) of everything that is trained, what matters most first."""
    order: list[tuple[str, str, int]] = []
    for seed in range(seeds):
        order += [(task, name, seed) for task in TASKS for name in MAIN]
        if seed == 0:
            order += [(task, name, 0) for task in TASKS for name in ALONE]
            order += [("films", name, 0) for name in CURVE]
    return order + [(task, name, seed) for seed in range(1, seeds) for task in TASKS for name in ALONE]


@app.callback()
def steps() -> None:
    """Train, then cost, then tables."""


@app.command()
def train(
    seeds: Annotated[int, typer.Option(min=1, help="Train with the seeds 0, 1, ...")] = 3,
    tasks: Annotated[list[str] | None, typer.Option("--task", help=f"By default all: {', '.join(TASKS)}.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Variants to train; by default all.")] = None,
) -> None:
    """Train what is missing."""
    trainers: dict[str, Trainer] = {}
    for task, name, seed in planned(seeds):
        if (only and name not in only) or (tasks and task not in tasks):
            continue
        trainer = trainers.get(task)
        if trainer is None:
            trainer = trainers.setdefault(task, Trainer(TASKS[task](), ROWS[task]))
        record = trainer.train(VARIANTS[name], seed)
        console.print(
            f"{task} {name} seed {seed}: accuracy {record['accuracy']:.1%}, "
            f"{record['cpu_seconds']:.0f} s of processor time"
        )


@app.command()
def cost(
    only: Annotated[list[str] | None, typer.Option(help="Variants; by default all that are trained.")] = None,
    protocols: Annotated[list[str] | None, typer.Option("--protocol", help=f"Of {', '.join(PROTOCOLS)}.")] = None,
    run: Annotated[bool, typer.Option(help="Run on real parties where that takes minutes.")] = True,
    check: Annotated[bool, typer.Option(help="Compare labels on the emulator.")] = False,
) -> None:
    """Estimate and measure what is missing, with the models of film reviews."""
    task = TASKS["films"]()
    for protocol in protocols or PROTOCOLS:
        for name in ("standard", "all", "all-5", *ALONE, *CURVE):
            variant = VARIANTS[name]
            if (only and name not in only) or record_of(task, variant, 0) is None:
                continue
            found = estimated(task, variant, protocol)
            if check:
                found = checked(task, variant, protocol)
            if run and name not in CURVE:
                found = measured(task, variant, protocol)
            taken = "" if found.measured_seconds is None else f", measured {found.measured_seconds:.1f} s"
            console.print(f"{protocol} {name}: {found.bytes_online / 1e6:,.1f} MB, {found.rounds:,} rounds{taken}")


@app.command()
def tables(out: Annotated[Path, typer.Option(help="Folder for the page and the plot.")] = Path("docs")) -> None:
    """Write marill-tables.md and marill-curve.svg from what is there."""
    from benchmarks.marill_tables import page, plot

    (out / "marill-tables.md").write_text(page(), "utf-8")
    plot(out / "marill-curve.svg")


if __name__ == "__main__":
    app()
