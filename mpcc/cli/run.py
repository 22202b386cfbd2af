"""`mpcc run`: all parties on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mpcc.cli import deploy, files
from mpcc.cli.console import note, stages, terminal
from mpcc.cli.options import JsonFlag, ProgramPath, TracebackFlag
from mpcc.compiler.errors import MpccError
from mpcc.engine_choice import choose_engine

RUN_STAGES = 4


def run(
    program: ProgramPath,
    input_file: Annotated[
        Path, typer.Option("--input", help="JSON: one object or a list of objects; - for standard input.")
    ],
    engine: Annotated[str | None, typer.Option(help="mp-spdz, spu, or emulator, which protects nothing.")] = None,
    spu_protocol: Annotated[str, typer.Option(help="Of spu: aby3 (three parties) or cheetah (two).")] = "aby3",
    as_json: JsonFlag = False,
    seed: Annotated[int, typer.Option(help="Of the emulator's probabilistic truncation.")] = 0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    state: Annotated[Path | None, typer.Option(help="Shares that mpcc provision stored; prog.state if there.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Inputs that share an inference: as many as compile --batch-size said.")
    ] = None,
    traceback: TracebackFlag = False,
) -> None:
    """Run a program, all parties on this machine; several inputs in one session."""
    samples = files.read_inputs(input_file)
    loaded = files.load(program)
    chosen, why = choose_engine(engine)
    joined = None if batch is None else len(samples)
    if batch is not None:
        if chosen == "spu":
            raise MpccError("the spu engine takes no --batch", todo="write whole batches into the input file")
        from mpcc.batches import joined as join

        samples = [*join(loaded, samples, batch, truncate)]
    if why:
        note(f"engine {chosen}: {why}")
    if chosen == "emulator":
        note("the emulator computes in clear and protects nothing")
    if chosen == "mp-spdz" and ((stored := _stored(program, state)) is not None or len(samples) > 1):
        deploy.run_here(loaded, samples, stored, truncate, as_json, joined)
        return
    if chosen == "spu":
        from mpcc.cli import spu as spu_commands

        if state is not None:
            raise MpccError(spu_commands.NOTHING_STORED, todo="leave out --state")
        spu_commands.run_here(loaded, samples, spu_protocol, truncate, as_json)
        return
    from mpcc.report.program import result_json, show_result

    labels = loaded.bundle.manifest.labels
    results = []
    with stages(RUN_STAGES * len(samples), silent=as_json) as stage:
        for sample in samples:
            stage("run")
            results.append(loaded.run(sample, chosen, seed=seed, truncate=truncate, progress=stage))
    if joined is not None:
        from mpcc.batches import parted

        results = parted(results, joined)
    for warning in dict.fromkeys(n for r in results for n in r.warnings):
        note(warning)
    if as_json:
        printed = [result_json(r, labels) for r in results]
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=1))
        return
    for result in results:
        show_result(terminal(), result, labels)


def _stored(program: Path, state: Path | None) -> Path | None:
    """Where the stored shares are: as told, or where `mpcc provision` puts them; None if there are none."""
    if state is not None:
        return state
    usual = program.with_suffix(".state")
    return usual if usual.is_dir() else None
