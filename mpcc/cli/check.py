"""The commands `mpcc verify` and `mpcc doctor`: exit code 0 where all is well, 1 where a check failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from mpcc.runtime.engine import Finding
    from mpcc.verify import Verification

FAILED = 1
_STAGES = 4  # of each sample
_MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def verify_command(
    program: Annotated[Path, typer.Argument(help="The program, prog.mpc; its bundle prog.mpcc stands beside it.")],
    samples: Annotated[Path, typer.Option("--samples", help="JSON: one input or a list of inputs.")],
    engine: Annotated[str | None, typer.Option(help="mp-spdz, spu, or emulator, which protects nothing.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Compare every layer, too (emulator only).")] = False,
    tolerance: Annotated[float, typer.Option(help="Largest absolute error of an output that is accepted.")] = 0.02,
    model: Annotated[Path | None, typer.Option(help="Compare with this model instead of the bundle itself.")] = None,
    base: Annotated[Path | None, typer.Option(help="The base of --model where that is an adapter.")] = None,
    seed: Annotated[int, typer.Option(help="Of the emulator's probabilistic truncation.")] = 0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Run the code in a pickled model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Compare secure or emulated outputs with the float model; exit code 1 past the tolerance."""
    given = files.read_inputs(samples)
    loaded = files.load(program)
    from mpcc.engine_choice import choose_engine
    from mpcc.verify import ModelReference, verify

    chosen, why = choose_engine(engine)
    if why:
        note(f"engine {chosen.name}: {why}")
    reference = None
    if model is not None:
        reference = ModelReference(loaded, str(model), base=str(base) if base else None, allow_pickle=allow_pickle)
    with stages(_STAGES * len(given), silent=as_json) as stage:
        result = verify(
            loaded,
            given,
            engine=chosen.name,
            tolerance=tolerance,
            layers=layers,
            model=reference,
            seed=seed,
            truncate=truncate,
            progress=stage,
        )
    if as_json:
        print(json.dumps(result.to_json(), indent=1))
    else:
        for warning in result.warnings:
            note(warning)
        show_verification(terminal(), result)
    if not result.ok:
        raise typer.Exit(FAILED)


def show_verification(console: Console, result: Verification) -> None:
    """Errors by output and, where compared, by layer; the verdict last."""
    from mpcc.report.tables import add, table_of

    against = "the original model" if result.reference == "model" else "its float model"
    table = table_of(
        f"{result.engine} against {against}, {result.samples} samples",
        "output",
        "max error",
        "mean error",
        "largest value",
        "same label",
    )
    for o in result.outputs.values():
        same = f"{o.same_labels} of {o.rows}" if o.rows else ""
        add(table, o.name, f"{o.largest:.2e}", f"{o.mean:.2e}", f"{o.magnitude:.3g}", same)
    console.print(table)
    if result.layers:
        inner = table_of("By layer", "layer", "max error", "mean error", "largest value", "worst", "bound used", "by")
        for c in result.layers.values():
            used = f"{100 * c.ratio:.0f} %{' !' if c.ratio > 1 else ''}"
            add(
                inner,
                c.name or "(the model itself)",
                f"{c.largest:.2e}",
                f"{c.mean:.2e}",
                f"{c.magnitude:.3g}",
                c.worst,
                used,
                c.tightest,
            )
        console.print()
        console.print(inner)
    console.print()
    verdict = "ok: every output is" if result.ok else "FAILED: not every output is"
    rounding = max((o.rounding for o in result.outputs.values()), default=0.0)
    more = f" and what the program rounds away ({rounding:g})" if rounding else ""
    console.print(f"{verdict} within {result.tolerance:g}{more}", style="bold", markup=False)


def doctor_command(
    program: Annotated[Path | None, typer.Argument(help="Also check what this program needs.")] = None,
    hosts: Annotated[Path | None, typer.Option(help="Also check the certificates in this hosts.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Say what is missing on this machine and what to do about it; exit code 1 if no secure engine is ready, or another
    check failed."""
    loaded = files.load(program) if program is not None else None
    from mpcc.doctor import examine

    lines = examine(loaded, hosts=hosts)
    failed = any(line.status == "fail" for line in lines)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [vars(line) for line in lines]}, indent=1))
    else:
        show_lines(terminal(), lines)
    if failed:
        raise typer.Exit(FAILED)


def show_lines(console: Console, lines: list[Finding]) -> None:
    """One line per check, and below it what to do."""
    from rich.text import Text

    for line in lines:
        console.print(Text(f"{line.status:<4} ", _MARKS[line.status]) + Text(f"{line.check}: {line.found}"))
        if line.todo:
            console.print(f"     -> {line.todo}", markup=False)
