"""The command line: `mpcc compile | inspect | run | explain | ...`; deployments are in party_commands.py.

Results go to stdout, progress, notes and errors to stderr. Exit codes: 0 done, 2 the user's mistake, 3 an engine or
party failed, 70 a bug of mpcc, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mpcc.cli import check as checking
from mpcc.cli import deploy as party_commands
from mpcc.cli import finetune as finetune_command
from mpcc.compiler.errors import InputError, MpccError
from mpcc.engine_choice import choose_engine

if TYPE_CHECKING:
    from mpcc.compiler.frontend.partition import Partition
    from mpcc.program import Program

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compile fine-tuned transformers to secure multi-party programs, inspect them and run them.",
)
checking.register(app)
finetune_command.register(app)

COMPILE_STAGES, RUN_STAGES = 12, 4
BUG, INTERRUPTED = 70, 130
TRACEBACK = "--traceback"
_FEW = 3
# typer brings its own click; the base of its usage errors has no public name
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

ProgramPath = Annotated[Path, typer.Argument(help="The program, prog.mpc; its bundle prog.mpcc stands beside it.")]
TracebackFlag = Annotated[bool, typer.Option(TRACEBACK, help="Show where an error comes from.")]
NetworkChoice = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="lan, wan, local, or a TOML file.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.command("compile")
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
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Run the code in a pickled model.")] = False,
    traceback: TracebackFlag = False,
) -> None:
    """Compile a model to an MP-SPDZ program and its bundle."""
    from mpcc.compiler.bundle.files import check_target

    check_target(out)
    chosen = _approximations(approximation or [])
    samples = read_inputs(calibration) if calibration is not None else []
    with _stages(COMPILE_STAGES) as stage:
        stage("start")
        from mpcc.program import compile

        program = compile(
            str(model),
            None,
            _partition(base, partition, peft),
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
            progress=stage,
        )
        stage("write")
        program.save(out)
    if calibrate_random:
        _note("ranges come from random inputs, which is good for costs only; use --calibration before real use")
    _summary(program, out)


def _summary(program: Program, out: Path) -> None:
    from mpcc.inspection import operations
    from mpcc.report.program import size

    cost, counts = program.cost(), operations(program)
    public = sum(e.visibility == "public" for e in program.bundle.manifest.evidence)
    total = len(program.bundle.manifest.evidence)
    console = _console()
    console.print(f"wrote {out} and {out.with_suffix('.mpcc')}", markup=False)
    console.print(
        f"{total - public} private and {public} public weights; {counts['mpc']} operations in MPC, "
        f"{counts['client']} at the client, {counts['provider']} at the provider",
        markup=False,
    )
    console.print(
        f"{size(cost.bytes_online)} and {cost.rounds:,} rounds per inference, about {cost.seconds:.2f} s of "
        f"network time on {cost.network.name}",
        markup=False,
    )


@app.command()
def inspect(
    program: ProgramPath,
    as_json: JsonFlag = False,
    ir: Annotated[str | None, typer.Option(help="Print an IR instead: graph or ring.")] = None,
    network: NetworkChoice = None,
    by: Annotated[str | None, typer.Option(help="Costs by layer, operation or primitive only.")] = None,
    traceback: TracebackFlag = False,
) -> None:
    """Show the weights and the evidence, who computes and learns what, costs and approximations."""
    if ir not in (None, "graph", "ring"):
        raise MpccError(f"there is no IR {ir!r}", todo="choose one of: graph, ring")
    loaded = _load(program)
    if ir is not None:
        print(_ir_text(loaded, ir), end="")
        return
    if by is not None:
        loaded.cost(network, by)  # refuses an unknown key
    if as_json:
        print(json.dumps(loaded.to_json(network), indent=1))
        return
    from mpcc.report.program import show_program

    loaded.cost(network)
    show_program(_console(), loaded, network, [by] if by else ["layer", "operation", "primitive"])


def _ir_text(program: Program, ir: str) -> str:
    from mpcc.compiler.graph.text import print_graph
    from mpcc.compiler.ring.text import print_ring

    return print_graph(program.bundle.graph) if ir == "graph" else print_ring(program.bundle.ring)


@app.command()
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
    samples = read_inputs(input_file)
    loaded = _load(program)
    chosen, why = choose_engine(engine)
    joined = None if batch is None else len(samples)
    if batch is not None:
        if chosen == "spu":
            raise MpccError("the spu engine takes no --batch", todo="write whole batches into the input file")
        from mpcc.batches import joined as join

        samples = [*join(loaded, samples, batch, truncate)]
    if why:
        _note(f"engine {chosen}: {why}")
    if chosen == "emulator":
        _note("the emulator computes in clear and protects nothing")
    if chosen == "mp-spdz" and ((stored := _stored(program, state)) is not None or len(samples) > 1):
        party_commands.run_here(loaded, samples, stored, truncate, as_json, joined)
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
    with _stages(RUN_STAGES * len(samples), silent=as_json) as stage:
        for sample in samples:
            stage("run")
            results.append(loaded.run(sample, chosen, seed=seed, truncate=truncate, progress=stage))
    if joined is not None:
        from mpcc.batches import parted

        results = parted(results, joined)
    for note in dict.fromkeys(n for r in results for n in r.warnings):
        _note(note)
    if as_json:
        printed = [result_json(r, labels) for r in results]
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=1))
        return
    for result in results:
        show_result(_console(), result, labels)


def _stored(program: Path, state: Path | None) -> Path | None:
    """Where the stored shares are: as told, or where `mpcc provision` puts them; None if there are none."""
    if state is not None:
        return state
    usual = program.with_suffix(".state")
    return usual if usual.is_dir() else None


@app.command()
def explain(
    program: ProgramPath,
    node: Annotated[
        str | None, typer.Argument(help="A node, weight or layer; without it, all nodes are listed.")
    ] = None,
    alternatives: Annotated[
        bool, typer.Option("--alternatives", help="The forms of the program that were considered, and why one won.")
    ] = False,
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Say why a node is computed where it is, or why the program has the form it has."""
    loaded = _load(program)
    if alternatives:
        _explain_alternatives(loaded, as_json)
        return
    lines = loaded.explain(node) if node is not None else _sites(loaded)
    print(json.dumps(lines, indent=1) if as_json else "\n".join(lines))


def _explain_alternatives(program: Program, as_json: bool) -> None:
    from dataclasses import asdict

    from mpcc.compiler.driver.choose import sentence
    from mpcc.report.program import show_alternatives

    manifest = program.bundle.manifest
    if as_json:
        why = sentence(manifest.alternatives, manifest.network.name)
        print(
            json.dumps(
                {
                    "network": asdict(manifest.network),
                    "why": why,
                    "alternatives": [asdict(a) for a in manifest.alternatives],
                },
                indent=1,
            )
        )
        return
    show_alternatives(_console(), manifest)


def _sites(program: Program) -> list[str]:
    """All operations by where they are computed."""
    lines = []
    for site in ("compile", "client", "provider", "mpc"):
        nodes = [n for n in program.bundle.graph.operations() if n.site == site]
        if nodes:
            lines.append(f"{'public, when compiled' if site == 'compile' else site}: {len(nodes)} operations")
            lines += [f"  {n.name} = {n.op}  {n.origin.layer}" for n in nodes]
    return lines


party_commands.register(app)


# ** files **
def read_inputs(path: Path) -> list[Mapping[str, object]]:
    """The objects of an input or calibration file, or of standard input (-): one, a list of them, or one a line.

    Raises:
        InputError: not readable, not JSON, or neither an object nor a list of objects.
    """
    where = "standard input" if str(path) == "-" else str(path)
    try:
        value = _parsed(sys.stdin.read() if str(path) == "-" else path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the inputs: {error.strerror}", where=where) from None
    except (ValueError, RecursionError):
        raise InputError("the file is not JSON", where=where) from None
    objects = value if isinstance(value, list) else [value]
    if not objects or not all(isinstance(o, dict) for o in objects):
        raise InputError(
            "the file holds neither an object nor a list of objects",
            where=where,
            todo='write {"input_ids": [[...]], ...} or {"text": "..."}',
        )
    return objects


def _parsed(text: str) -> Any:
    """A JSON document, or a list of one document for each line."""
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def _load(path: Path) -> Program:
    from mpcc.program import load

    return load(path)


def _partition(base: Path | None, rules: Path | None, peft: bool) -> Partition | None:
    """None stands for the default: with a base, what is equal to it is public."""
    from mpcc.compiler.frontend.partition import Partition

    if peft and base is None:
        raise MpccError("--peft needs the base model", todo="name it with --base")
    if rules is None and not peft:
        return None if base is None else Partition.from_base(base)
    start = Partition.all_private()
    if base is not None:
        start = Partition.from_peft(base) if peft else Partition.from_base(base)
    return start if rules is None else start.with_rules(rules)


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


# ** terminal **
def _console(*, stderr: bool = False) -> Console:
    """A console that keeps tables readable in files and pipes."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 140, highlight=False, soft_wrap=False)


def _note(text: str) -> None:
    print(f"mpcc: note: {text}", file=sys.stderr)


@contextmanager
def _stages(total: int, *, silent: bool = False) -> Iterator[Callable[[str], None]]:
    """A progress bar that is told the name of each stage; none where nobody looks at it."""
    if silent or not sys.stderr.isatty():
        yield lambda name: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        task = progress.add_task("start", total=total)

        def stage(name: str) -> None:
            progress.update(task, description=name, advance=1)

        yield stage


def _one_line(error: MpccError) -> str:
    """The message on one line; only a list of more than a few gaps keeps its lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > _FEW + 2:
        return "\n  ".join(lines)
    return "; ".join(line.rstrip(":;") if i < len(lines) - 1 else line.lstrip("; ") for i, line in enumerate(lines))


def _quiet() -> None:
    """No warnings and progress bars of libraries between ours."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def call(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments and return its exit code."""
    shown = TRACEBACK in arguments
    try:
        code = typer.main.get_command(app).main(list(arguments) or ["--help"], prog_name="mpcc", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _failed("interrupted", INTERRUPTED, False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", INTERRUPTED, False)
    except MpccError as error:
        return _failed(f"error: {_one_line(error)}", error.exit_code, shown)
    except _UsageError as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _failed(f"error: {str(message).rstrip('.')}; see mpcc --help", 2, False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has read enough
        return 0
    except Exception as error:
        hint = "" if shown else f" (with the output of {TRACEBACK})"
        name = type(error).__name__
        return _failed(f"this is a bug in mpcc, please report it{hint}: {name}: {_first_line(error)}", BUG, shown)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _failed(message: str, code: int, shown: bool) -> int:
    if shown:
        traceback.print_exc()
    print(f"mpcc: {message}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the `mpcc` command."""
    _quiet()
    sys.exit(call(sys.argv[1:]))
