"""`mpcc compile`: a model becomes a program and its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages, terminal
from mpcc.cli.options import TracebackFlag
from mpcc.compiler.errors import MpccError

if TYPE_CHECKING:
    from mpcc.compiler.frontend.partition import Partition
    from mpcc.program import Program

COMPILE_STAGES = 12


def compile_command(
    model: Annotated[Path, typer.Argument(help="Exported program, mpcc.save file, Hugging Face or adapter folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", readable=False, help="The program to write, prog.mpc.")],
    base: Annotated[Path | None, typer.Option(help="Open checkpoint: tensors equal to it are public.")] = None,
    partition: Annotated[Path | None, typer.Option(help="TOML file with lists of names: public, private.")] = None,
    peft: Annotated[bool, typer.Option("--peft", help="The model must be an adapter on --base.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="JSON file with inputs like the real ones.")] = None,
    calibrate_random: Annotated[int, typer.Option(min=0, help="Calibrate with that many random inputs.")] = 0,
    sequence_length: Annotated[int | None, typer.Option(min=1, help="Tokens per input of a text model.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per inference.")] = 1,
    protocol: Annotated[
        str, typer.Option(help="ring, dealer-ring, semi2k, hemi, temi, rep4-ring, ps-rep-ring, sy-rep-ring.")
    ] = "ring",
    network: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="lan, wan, local or a TOML file: what the program is to be fast on."),
    ] = "lan",
    savings: Annotated[bool, typer.Option("--savings", help="Note what each pass saves; takes longer.")] = False,
    approximation: Annotated[list[str] | None, typer.Option(help="e.g. gelu=quad; may be given again.")] = None,
    output: Annotated[str, typer.Option(help="logits (the first output) or all.")] = "logits",
    public_input: Annotated[list[str] | None, typer.Option(help="An input that everybody may learn.")] = None,
    profile: Annotated[
        str, typer.Option(help="safe: no truncation can fail; default: local ones within a budget; fast: tight ranges.")
    ] = "default",
    failure_bits: Annotated[
        int | None, typer.Option(min=1, max=60, help="Truncations may fail with probability 2^-N per inference.")
    ] = None,
    frac_bits: Annotated[
        int | None, typer.Option(min=4, max=30, help="Fractional bits of activations; by default the profile's.")
    ] = None,
    truncation: Annotated[
        str | None, typer.Option(help="probabilistic or nearest (leaks nothing); by default what is cheaper.")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut calibration texts that are too long.")] = False,
    recover_lora: Annotated[
        str | None, typer.Option(metavar="RANK|ERROR", help="Find updates of low rank: 8, or an error like 0.05.")
    ] = None,
    open_adapter: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Adapter tensors that are public; may be given again.")
    ] = None,
    all_public: Annotated[
        bool, typer.Option("--all-public", help="Allow that nothing, or not even the head, stays private.")
    ] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Run the code in a pickled model.")] = False,
    traceback: TracebackFlag = False,
) -> None:
    """Compile a model to an MP-SPDZ program and its bundle."""
    from mpcc.compiler.bundle.files import check_target

    check_target(out)
    chosen = _approximations(approximation or [])
    samples = files.read_inputs(calibration) if calibration is not None else []
    with stages(COMPILE_STAGES) as stage:
        stage("start")
        from mpcc.api import compile
        from mpcc.compiler.frontend.publishing import notes

        program = compile(
            str(model),
            None,
            _partition(base, partition, peft, tuple(open_adapter or ())),
            samples,
            protocol=protocol,
            network=network,
            approximations=chosen,
            output=output,
            sequence_length=sequence_length,
            batch_size=batch_size,
            public_inputs=public_input or (),
            frac_bits=frac_bits,
            truncation=truncation,
            base=base,
            profile=profile,
            failure_bits=failure_bits,
            calibrate_random=calibrate_random,
            allow_pickle=allow_pickle,
            truncate=truncate,
            recover_lora=_rank_or_error(recover_lora),
            savings=savings,
            all_public=all_public,
            progress=stage,
        )
        stage("write")
        program.save(out)
    if calibrate_random:
        note("ranges come from random inputs, which is good for costs only; use --calibration before real use")
    for line in notes(program.bundle.manifest.evidence):
        note(line)
    _summary(program, out)


def _summary(program: Program, out: Path) -> None:
    from mpcc.compiler.frontend.partition import IMPLIED
    from mpcc.inspection import operations
    from mpcc.report.program import size

    cost, counts = program.cost(), operations(program)
    evidence = program.bundle.manifest.evidence
    implied = sum(e.reason.startswith(IMPLIED) for e in evidence)
    public = sum(e.visibility == "public" for e in evidence) - implied
    total = len(evidence) - implied
    console = terminal()
    console.print(f"wrote {out} and {out.with_suffix('.mpcc')}", markup=False)
    console.print(
        f"{total - public} private and {public} public weights, {implied} public constants; "
        f"{counts['mpc']} operations in MPC, {counts['client']} at the client, {counts['provider']} at the provider",
        markup=False,
    )
    console.print(
        f"{size(cost.bytes_online)} and {cost.rounds:,} rounds per inference, about {cost.seconds:.2f} s of "
        f"network time on {cost.network.name}",
        markup=False,
    )


def _partition(base: Path | None, rules: Path | None, peft: bool, opened: tuple[str, ...] = ()) -> Partition | None:
    """None stands for the default: with a base, what is equal to it is public."""
    from mpcc.compiler.frontend.partition import Partition

    if peft and base is None:
        raise MpccError("--peft needs the base model", todo="name it with --base")
    if rules is None and not peft and not opened:
        return None if base is None else Partition.from_base(base)
    start = Partition.all_private()
    if base is not None:
        start = Partition.from_peft(base) if peft else Partition.from_base(base)
    start = start if rules is None else start.with_rules(rules)
    return replace(start, open_adapters=(*start.open_adapters, *opened))


def _rank_or_error(given: str | None) -> int | float | None:
    if given is None:
        return None
    try:
        return int(given) if given.lstrip("+-").isdigit() else float(given)
    except ValueError:
        raise MpccError(f"--recover-lora {given!r} is neither a rank nor an error", todo="e.g. 8, or 0.05") from None


def _approximations(given: Sequence[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in given]
    if wrong := [op for op, sign, form in pairs if not (op and sign and form)]:
        raise MpccError(f"--approximation {wrong[0]!r} is not OPERATION=FORM", todo="e.g. --approximation gelu=quad")
    return {op: form for op, _, form in pairs}
