"""`mpcc run`: all parties on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages
from mpcc.cli.options import JsonFlag, ProgramPath, TracebackFlag

if TYPE_CHECKING:
    from mpcc.runtime.engine import Engine

_STAGES = 3


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
    from mpcc.cli.answers import show_answers
    from mpcc.engine_choice import choose_engine
    from mpcc.exchange import run_session
    from mpcc.runtime.engine import Options

    samples = files.read_inputs(input_file)
    loaded = files.load(program)
    chosen, why = choose_engine(engine, Options(spu_protocol, seed))
    stored = _stored(program, state, chosen)
    count = len(samples)
    if batch is not None:
        from mpcc.batches import joined

        samples = [*joined(loaded, samples, batch, truncate)]
    if why:
        note(f"engine {chosen.name}: {why}")
    if not chosen.secure:
        note(f"the {chosen.name} computes in clear and protects nothing")
    if stored is not None:
        note(f"using the shares in {stored}: no weight is sent")
    with stages(_STAGES, silent=as_json) as stage:
        results, served = run_session(loaded, samples, chosen, state=stored, truncate=truncate, progress=stage)
    if batch is not None:
        from mpcc.batches import parted

        results = parted(results, count)
    show_answers(loaded, results, served, as_json=as_json, alone=len(samples) == 1 and stored is None)


def _stored(program: Path, state: Path | None, engine: Engine) -> Path | None:
    """Where the stored shares are: as told, or where `mpcc provision` puts them; None if there are none."""
    from mpcc.exchange import default_state

    if state is None:
        usual = default_state(program)
        return usual if engine.stores_shares and usual.is_dir() else None
    if not engine.stores_shares:
        raise engine.nothing_stored()
    return state
