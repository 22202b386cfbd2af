"""MP-SPDZ's own importer, SPU and mpcc, side by side: the same weights, inputs, parties and machine, in one run.

    python -m benchmarks.compare --shape tiny32 --shape tiny128 --out build/benchmarks

Bytes are summed over the three parties, rounds are the largest party's counter, seconds the slowest party's; all of the
inference alone, without sharing weights and inputs. Errors are against float64 PyTorch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.importer import run_importer
from benchmarks.ours import Built, ablate, build, run_emulated, run_secure
from benchmarks.subjects import SHAPES, Stack, Subject, first_layers, subject
from benchmarks.tables import Part, Row, ablation_table, markdown, parts_table, write

console = Console()


def importer_row(it: Subject, stack: Stack) -> Row:
    """The importer on the subject; on fewer layers than it has, its cost is scaled up and there is no error."""
    measured, found = run_importer(stack)
    row = Row(
        it.name,
        it.title,
        "importer",
        measured.total_bytes,
        measured.rounds,
        measured.seconds,
        measured.compile_seconds,
        measured.byte_code,
        output=it.output,
    )
    scale = it.stack.config.num_hidden_layers / stack.config.num_hidden_layers
    if scale != 1:
        note = f"{stack.config.num_hidden_layers} layer(s) measured; bytes, rounds and seconds x{scale:g}"
        return replace(
            row,
            bytes=round(measured.total_bytes * scale),
            rounds=round(measured.rounds * scale),
            seconds=measured.seconds * scale,
            note=note,
        )
    error = (found - stack.expected).abs()
    equal = int(found.argmax()) == int(stack.expected.argmax())
    return replace(
        row,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        labels=f"{int(equal)} of 1" if stack.labels else "",
        note="attends to padding; compared with PyTorch doing so" if stack.labels else "",
    )


def our_rows(it: Subject, profile: str) -> tuple[list[Row], Built]:
    """mpcc on three real parties, and on the emulator for all test inputs."""
    built = build(it, profile)
    measured, found = run_secure(built)
    error = (found - it.expected[0]).abs()
    estimated, labelled = built.program.cost().bytes_online, it.stack.labels > 0
    equal = int(found.argmax()) == int(it.expected[0].argmax())
    real = Row(
        it.name,
        it.title,
        f"mpcc {profile}",
        measured.total_bytes,
        measured.rounds,
        measured.seconds,
        measured.compile_seconds,
        measured.byte_code,
        float(error.max()),
        float(error.mean()),
        f"{int(equal)} of 1" if labelled else "",
        it.output,
        estimated,
        built.failure_bits,
        f"mpcc's own compiler {built.seconds:.1f} s",
    )
    clear = run_emulated(built)
    note = f"{clear.inputs} inputs in clear; {clear.overflows} overflows, largest use of a bound {clear.widest:.3g}"
    emulated = Row(
        it.name,
        it.title,
        f"mpcc {profile}, emulator",
        max_error=clear.max_error,
        mean_error=clear.mean_error,
        labels=f"{clear.equal_labels} of {clear.inputs}" if labelled else "",
        output=it.output,
        note=note + (f", {clear.beyond} places beyond theirs" if clear.beyond else ""),
    )
    return [real, emulated], built


def spu_row(it: Subject) -> Row:
    """The same model on SPU's ABY3, from the same bundle: three parties on this machine, the first test input."""
    result = build(it, "safe").program.run(it.inputs[0], engine="spu")
    measured, found = result.measured, next(iter(result.outputs.values())).reshape(it.expected[0].shape)
    assert measured is not None  # something secret is left in every subject
    error = (found - it.expected[0]).abs()
    equal = int(found.argmax()) == int(it.expected[0].argmax())
    return Row(
        it.name,
        it.title,
        "spu aby3",
        measured.bytes_online,
        measured.rounds,
        measured.seconds,
        measured.compile_seconds,
        None,
        float(error.max()),
        float(error.mean()),
        f"{int(equal)} of 1" if it.stack.labels else "",
        it.output,
        note="rounds are messages sent by the busiest party",
    )


def parts_of(built: Built, profile: str) -> list[str]:
    """The estimated cost by operation and by primitive."""
    cost = built.program.cost()
    return [
        parts_table(f"{built.subject.title}, {profile}, by {key}", [Part(*row) for row in cost.by(key)])
        for key in ("operation", "primitive")
    ]


def about() -> dict[str, str]:
    """What has to be known to compare with another run."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": str(os.cpu_count()),
        "load at the end": load,
        "torch": torch.__version__,
        "options": "-E ring -b 100000, three parties on one machine",
    }


def main(
    shape: Annotated[list[str], typer.Option(help=f"What to compare: {', '.join(SHAPES)}.")],
    profiles: Annotated[str, typer.Option(help="Profiles of mpcc, separated by commas.")] = "safe,default",
    importer: Annotated[bool, typer.Option(help="Run MP-SPDZ's importer too.")] = True,
    spu: Annotated[bool, typer.Option(help="Run SPU's ABY3 on the same model too.")] = True,
    importer_layers: Annotated[int, typer.Option(help="Give the importer so many layers only, and scale up.")] = 0,
    ablation: Annotated[bool, typer.Option(help="Estimate the cost with each pass switched off.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for compare.md and compare.json.")] = Path("build/benchmarks"),
) -> None:
    """Compare, and write the tables after every subject."""
    rows: list[Row] = []
    texts: list[str] = []
    stacks: dict[str, Row] = {}
    for name in shape:
        it = subject(name)
        if importer:
            if it.stack.key not in stacks:
                console.print(f"{it.title}: importer")
                stacks[it.stack.key] = importer_row(it, first_layers(it.stack, importer_layers))
            rows.append(replace(stacks[it.stack.key], subject=it.name, title=it.title))
            write(out, rows, texts, about())
        if spu:
            console.print(f"{it.title}: spu aby3")
            rows.append(spu_row(it))
            write(out, rows, texts, about())
        for profile in profiles.split(","):
            console.print(f"{it.title}: mpcc {profile}")
            found, built = our_rows(it, profile)
            rows += found
            texts += parts_of(built, profile)
            write(out, rows, texts, about())
            if ablation:
                table = [(e.switched_off, e.bytes, e.rounds, e.problem) for e in ablate(it, profile)]
                texts.append(ablation_table(f"{it.title}, {profile}: one pass off", table))
                write(out, rows, texts, about())
    console.print(markdown(rows), markup=False)


if __name__ == "__main__":
    typer.run(main)
