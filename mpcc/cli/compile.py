"""`mpcc compile`: a model becomes a program and its bundle."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages, terminal
from mpcc.cli.options import TracebackFlag
from mpcc.compiler.driver.options import SWITCHABLE, Options
from mpcc.compiler.errors import MpccError
from mpcc.passes import GRAPH

if TYPE_CHECKING:
    from mpcc.compiler.frontend.partition import Partition
    from mpcc.program import Program

STAGES = len(GRAPH) + 5  # start, capture, schedule, emit, write


def _flag(name: str, help: str) -> Any:
    return Annotated[bool, typer.Option(f"--{name}", help=help)]


# What is asked on the command line alone: name -> type and help; without a default it must be given.
OWN: Mapping[str, Any] = {
    "model": Annotated[Path, typer.Argument(help="Exported program, mpcc.save file, Hugging Face or adapter folder.")],
    "out": Annotated[Path, typer.Option("-o", "--out", readable=False, help="The program to write, prog.mpc.")],
    "partition": Annotated[Path | None, typer.Option(help="TOML file with lists of names: public, private.")],
    "peft": _flag("peft", "The model must be an adapter on --base."),
    "open_adapter": Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Adapter tensors that are public; may be given again.")
    ],
    "calibration": Annotated[Path | None, typer.Option(help="JSON file with inputs like the real ones.")],
    "prompt_tokens": Annotated[
        int | None, typer.Option(min=1, help="Compile to generate text: tokens of the longest prompt.")
    ],
    "cache_tokens": Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and answer together; twice the prompt unless given.")
    ],
    "draft_tokens": Annotated[int, typer.Option(min=0, help="Drafted tokens that a step of generation verifies.")],
    "traceback": TracebackFlag,
}
DEFAULTS: dict[str, object] = {
    "partition": None,
    "peft": False,
    "open_adapter": None,
    "calibration": None,
    "prompt_tokens": None,
    "cache_tokens": None,
    "draft_tokens": 0,
    "traceback": False,
}

# Fields of `Options`, whose defaults they have.
FIELDS: Mapping[str, Any] = {
    "base": Annotated[Path | None, typer.Option(help="Open checkpoint: tensors equal to it are public.")],
    "calibrate_random": Annotated[int, typer.Option(min=0, help="Calibrate with that many random inputs.")],
    "sequence_length": Annotated[int | None, typer.Option(min=1, help="Tokens per input of a text model.")],
    "batch_size": Annotated[int, typer.Option(min=1, help="Inputs per inference.")],
    "protocol": Annotated[
        str, typer.Option(help="ring, dealer-ring, semi2k, hemi, temi, rep4-ring, ps-rep-ring, sy-rep-ring.")
    ],
    "network": Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="lan, wan, local or a TOML file: what the program is to be fast on."),
    ],
    "savings": _flag("savings", "Note what each pass saves; takes longer."),
    "approximation": Annotated[list[str] | None, typer.Option(help="e.g. gelu=quad; may be given again.")],
    "output": Annotated[
        str, typer.Option(help="logits (the first output), label (which logit is largest, and no logit) or all.")
    ],
    "output_frac_bits": Annotated[
        int | None,
        typer.Option(min=0, max=30, help="Fractional bits of revealed numbers; the rest is rounded away inside MPC."),
    ],
    "public_input": Annotated[list[str] | None, typer.Option(help="An input that everybody may learn.")],
    "all_public": _flag("all-public", "Allow that nothing, or not even the head, stays private."),
    "profile": Annotated[
        str,
        typer.Option(help="safe: no truncation can fail; default: local ones within a budget; fast: tight ranges."),
    ],
    "failure_bits": Annotated[
        int | None, typer.Option(min=1, max=60, help="Truncations may fail with probability 2^-N per inference.")
    ],
    "frac_bits": Annotated[
        int | None, typer.Option(min=4, max=30, help="Fractional bits of activations; by default the profile's.")
    ],
    "truncation": Annotated[
        str | None, typer.Option(help="probabilistic or nearest (leaks nothing); by default what is cheaper.")
    ],
    "truncate": _flag("truncate", "Cut calibration texts that are too long."),
    "recover_lora": Annotated[
        str | None, typer.Option(metavar="RANK|ERROR", help="Find updates of low rank: 8, or an error like 0.05.")
    ],
    "allow_pickle": _flag("allow-pickle", "Run the code in a pickled model."),
    "print_after": Annotated[
        list[str] | None,
        typer.Option(metavar="PASS|all", help="Print the program to stderr after a pass; may be given again."),
    ],
    "time_passes": _flag("time-passes", "Print the CPU seconds of each pass to stderr."),
    "without": Annotated[
        list[str] | None,
        typer.Option(metavar="PASS", help="Leave out a pass, to see what it saves; may be given again."),
    ],
}
REPEATED: Mapping[str, str] = {"approximation": "approximations", "public_input": "public_inputs"}  # option -> field


def compile_command(**given: Any) -> None:
    """Compile a model to an MP-SPDZ program and its bundle."""
    from mpcc.compiler.bundle.files import check_target

    out: Path = given["out"]
    check_target(out)
    choices = _choices(given)
    if given["prompt_tokens"] is not None:
        _compile_generation(given, choices)
        return
    samples = files.read_inputs(given["calibration"]) if given["calibration"] is not None else []
    with stages(STAGES + (len(SWITCHABLE) if choices["savings"] else 0)) as stage:
        stage("start")
        from mpcc.api import compile
        from mpcc.compiler.frontend.publishing import notes
        from mpcc.extraction import extraction, warning

        partition = _partition(given["base"], given["partition"], given["peft"], given["open_adapter"] or ())
        program = compile(str(given["model"]), None, partition, samples, progress=stage, **choices)
        stage("write")
        program.save(out)
    if choices["calibrate_random"]:
        note("ranges come from random inputs, which is good for costs only; use --calibration before real use")
    for line in (*notes(program.bundle.manifest.evidence), warning(extraction(program.bundle))):
        if line:
            note(line)
    _summary(program, out)


def _compile_generation(given: Mapping[str, Any], choices: dict[str, Any]) -> None:
    """A causal language model, to write text with."""
    if given["calibration"] is None:
        raise MpccError("a program that generates needs calibration texts", todo="give them with --calibration")
    texts = [_text_of(sample) for sample in files.read_inputs(given["calibration"])]
    with stages(2 * STAGES) as stage:
        stage("start")
        from mpcc.api import compile_generation
        from mpcc.loading import load_generator

        partition = _partition(given["base"], given["partition"], given["peft"], given["open_adapter"] or ())
        generator = compile_generation(
            str(given["model"]),
            texts,
            partition,
            prompt_tokens=given["prompt_tokens"],
            cache_tokens=given["cache_tokens"] or 2 * given["prompt_tokens"] + given["draft_tokens"],
            draft_tokens=given["draft_tokens"],
            progress=stage,
            **choices,
        )
        stage("write")
        generator.save(given["out"])
    load_generator(given["out"])
    for name, program in (("prompt", generator.prefill), ("step", generator.decode)):
        terminal().print(f"{name}:", markup=False)
        _summary(program, given["out"])


def _text_of(sample: Mapping[str, object]) -> Any:
    """A calibration text, or token ids."""
    found = sample.get("text", sample.get("input_ids"))
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], (str, list)):
        found = found[0]
    if not isinstance(found, (str, list)):
        raise MpccError('a calibration input has neither "text" nor "input_ids"')
    return found


def _choices(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `Options` takes, from what was typed."""
    typed = {REPEATED.get(name, name): given[name] for name in FIELDS}
    return typed | {
        "approximations": _approximations(typed["approximations"] or ()),
        "recover_lora": _rank_or_error(typed["recover_lora"]),
        **{name: tuple(typed[name] or ()) for name in ("public_inputs", "print_after", "without")},
    }


def _signature() -> inspect.Signature:
    """The parameters of the command, from the tables: typer reads them as if they had been written out."""
    values = {f.name: getattr(Options(), f.name) for f in fields(Options)}
    chosen = {name: values[REPEATED.get(name, name)] for name in FIELDS}
    known = DEFAULTS | {name: None if value in ((), frozenset(), "") else value for name, value in chosen.items()}
    types, empty = {**OWN, **FIELDS}, inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=known.get(name, empty), annotation=type)
            for name, type in types.items()
        ]
    )


def _summary(program: Program, out: Path) -> None:
    from mpcc.compiler.frontend.partition import IMPLIED
    from mpcc.inspection import operations
    from mpcc.sizes import size

    cost, counts = program.cost(), operations(program)
    evidence = program.bundle.manifest.evidence
    implied = sum(e.reason.startswith(IMPLIED) for e in evidence)
    public = sum(e.visibility == "public" for e in evidence) - implied
    total = len(evidence) - implied
    console = terminal()
    console.print(f"wrote {out} and {out.with_suffix('.mpcc')}", markup=False)
    console.print(
        f"{total - public} private and {public} public weights, {implied} public constant{'s' * (implied != 1)}; "
        f"{counts['mpc']} operations in MPC, {counts['client']} at the client, {counts['provider']} at the provider",
        markup=False,
    )
    console.print(
        f"{size(cost.bytes_online)} and {cost.rounds:,} rounds per inference, about {cost.seconds:.2f} s of "
        f"network time on {cost.network.name}",
        markup=False,
    )


def _partition(base: Path | None, rules: Path | None, peft: bool, opened: Sequence[str]) -> Partition | None:
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


compile_command.__signature__ = _signature()  # type: ignore[attr-defined]
