"""Commands for deployments: `mpcc provision | split | keys | party`.

Nothing here imports torch before the client's own part is needed: provider and helper do without.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages, terminal
from mpcc.cli.options import JsonFlag, ProgramPath, StateOption, TracebackFlag
from mpcc.compiler.errors import MpccError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpcc.compiler.cost import Cost
    from mpcc.program import Program
    from mpcc.runtime.engine import Deployment, Provisioned, Served
    from mpcc.runtime.mp_spdz.session import Site
    from mpcc.runtime.parties.processes import Limits

_STAGES = 3


def provision(
    program: ProgramPath,
    state: StateOption = None,
    split_into: Annotated[Path | None, typer.Option("--split", help="Write each role's folder here as well.")] = None,
    engine: Annotated[str | None, typer.Option(help="mp-spdz: spu stores no shares.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Another fine-tune of the same model: its weights replace the program's first.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The base of --model where that is an adapter.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="JSON inputs: --model is refused if a value leaves its range on one of them.")
    ] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Run the code in a pickled model.")] = False,
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Share the private weights once and store the shares (mp-spdz); all parties on this machine."""
    from mpcc.engine_choice import check_provisioning
    from mpcc.exchange import default_state
    from mpcc.loading import load
    from mpcc.report.session import show_provisioned

    if model is None and (base is not None or calibration is not None):
        raise MpccError("--base and --calibration go with --model", todo="name the new fine-tune with --model")
    check_provisioning(engine)
    target = state or default_state(program)
    with stages(_STAGES, silent=as_json) as stage:
        loaded = load(program)
        if model is not None:
            samples = files.read_inputs(calibration) if calibration is not None else []
            if not samples:
                note("the new weights' ranges are not checked: give --calibration, or see mpcc verify --layers")
            loaded = loaded.with_weights(model, base=base, calibration=samples, allow_pickle=allow_pickle)
            loaded.save(program)
        done = loaded.provision(target, progress=stage)
    if split_into is not None:
        split(program, split_into)
    if as_json:
        print(json.dumps(vars(done) | {"state": str(target)}, indent=1))
        return
    show_provisioned(terminal(), done, str(target))


def split(
    program: ProgramPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for one folder per role.")],
    traceback: TracebackFlag = False,
) -> None:
    """Write one folder for each role, holding only its own part of the program."""
    from mpcc.compiler.bundle.role_part import program_path, read_deployment
    from mpcc.runtime.mp_spdz.home import setup_of
    from mpcc.split import split_program

    protocol = read_deployment(program_path(program)).protocol
    for path in split_program(program, out, setup_of(protocol).roles):
        terminal().print(f"wrote {path}", markup=False)


def keys(
    role: Annotated[str, typer.Option(help="client, provider, helper or dealer.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the key and the certificate.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the certificate is valid.")] = 30,
    traceback: TracebackFlag = False,
) -> None:
    """Make a role's key and certificate; the others need the certificate and its fingerprint."""
    from mpcc.runtime.parties.hosts import entry_of, player_of
    from mpcc.runtime.parties.keys import fingerprint, make_identity, save_identity

    identity = make_identity(player_of(role), datetime.timedelta(days=days))
    try:
        certificate, key = save_identity(out, role, identity)
    except FileExistsError:
        raise MpccError(
            "there is a key already", where=str(out / f"{role}.key"), todo="remove it, or choose another folder with -o"
        ) from None
    except OSError as error:
        raise MpccError(f"cannot write the key: {error.strerror}", where=str(out)) from None
    mark = fingerprint(identity.certificate)
    print(f"wrote {key} (keep it secret) and {certificate} (give it to the others), valid for {days} days")
    print(f"fingerprint {mark}\n\nfor hosts.toml:\n\n{entry_of(role, certificate, mark)}", end="")


def party(
    program: ProgramPath,
    role: Annotated[str, typer.Option(help="client, provider, or helper (dealer).")],
    hosts: Annotated[Path, typer.Option(help="TOML file: host, port and certificate of every role.")],
    input_file: Annotated[
        Path | None, typer.Option("--input", help="The client's: a JSON file, or - for one JSON object a line.")
    ] = None,
    state: StateOption = None,
    provision_only: Annotated[bool, typer.Option("--provision", help="Share the weights, store the shares.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the others at the start.")] = 25.0,
    idle: Annotated[float, typer.Option(min=1, help="Seconds without any work that are too long.")] = 25.0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    engine: Annotated[str, typer.Option(help="mp-spdz or spu, the same for all roles.")] = "mp-spdz",
    spu_protocol: Annotated[str, typer.Option(help="Of spu: aby3 (three parties) or cheetah (two).")] = "aby3",
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Run one role. All roles start within --wait seconds, all with --provision, all with --state, or all without."""
    from mpcc.compiler.bundle.role_part import program_path, read_deployment
    from mpcc.runtime.parties.hosts import site_of
    from mpcc.runtime.parties.processes import Limits

    source = program_path(program)
    if (role == "client" and not provision_only) != (input_file is not None):
        raise MpccError("the client needs --input, and nobody else does")
    if engine != "mp-spdz":
        _spu_party(
            source,
            role,
            hosts,
            engine,
            spu_protocol,
            Limits(wait, idle),
            input_file,
            truncate,
            as_json,
            stores=provision_only or state is not None,
        )
        return
    shared = read_deployment(source)
    site, limits = site_of(hosts, role, shared.protocol), Limits(wait, idle)
    if provision_only:
        _provision_party(source, role, shared, site, limits, state, as_json)
    elif input_file is not None:
        _client(source, input_file, site, limits, state, truncate, as_json)
    else:
        _serve_party(source, role, shared, site, limits, state, as_json)


def _spu_party(
    source: Path,
    role: str,
    hosts: Path,
    engine: str,
    protocol: str,
    limits: Limits,
    input_file: Path | None,
    truncate: bool,
    as_json: bool,
    *,
    stores: bool,
) -> None:
    """A role on the spu engine, which stores no shares."""
    from mpcc.cli import spu as spu_commands
    from mpcc.runtime.spu.protocols import NAME

    if engine != NAME:
        raise MpccError(f"the engine {engine!r} has no parties", todo="engines with parties: mp-spdz, spu")
    if stores:
        raise MpccError(spu_commands.NOTHING_STORED, todo="leave out --provision and --state")
    spoken = str(input_file) == "-"
    samples = None if input_file is None else files.spoken_lines() if spoken else files.read_inputs(input_file)
    spu_commands.party(source, role, hosts, protocol, limits, truncate, as_json, samples, spoken)


def _provision_party(
    source: Path, role: str, shared: Deployment, site: Site, limits: Limits, state: Path | None, as_json: bool
) -> None:
    from mpcc.compiler.bundle.role_part import read_weights
    from mpcc.report.session import show_provisioned
    from mpcc.runtime.mp_spdz.session import provision as share

    weights = read_weights(source) if role == "provider" else None
    target = state or source.with_suffix(".state")
    with stages(_STAGES, silent=as_json) as stage:
        done: Provisioned = share(shared, weights, target, site, limits=limits, on_stage=stage)
    if as_json:
        print(json.dumps(vars(done) | {"state": str(target), "role": role}, indent=1))
    else:
        show_provisioned(terminal(), done, str(target))


def _serve_party(
    source: Path, role: str, shared: Deployment, site: Site, limits: Limits, state: Path | None, as_json: bool
) -> None:
    from mpcc.compiler.bundle.role_part import read_weights
    from mpcc.runtime.mp_spdz.session import serve

    weights = read_weights(source) if role == "provider" and state is None else None
    with stages(_STAGES, silent=as_json) as stage:
        served = serve(shared, None, weights=weights, state=state, site=site, limits=limits, on_stage=stage)
    _tell(served, _estimate(source), role, state is not None, as_json)


def _client(
    source: Path, input_file: Path, site: Site, limits: Limits, state: Path | None, truncate: bool, as_json: bool
) -> None:
    """The client: prepares its inputs, and is the only one to print outputs."""

    spoken = str(input_file) == "-"
    samples = files.spoken_lines() if spoken else files.read_inputs(input_file)
    from mpcc.exchange import run_session
    from mpcc.loading import load
    from mpcc.report.program import result_json, show_outputs
    from mpcc.report.session import session_json
    from mpcc.result import Result

    program = load(source, {"client"})
    labels = program.bundle.manifest.labels

    def told(result: Result) -> None:
        outputs = result_json(result, labels)
        print(json.dumps({name: outputs[name] for name in ("outputs", "labels")}), flush=True)

    with stages(_STAGES, silent=as_json or spoken) as stage:
        results, served = run_session(
            program,
            samples,
            state,
            site=site,
            truncate=truncate,
            progress=stage,
            on_result=told if spoken else None,
            limits=limits,
        )
    for warning in dict.fromkeys(n for r in results for n in r.warnings):
        note(warning)
    if spoken:
        return
    if as_json:
        answers = [result_json(r, labels) for r in results]
        session = session_json(served, program.cost(), "client") if served is not None else {}
        print(json.dumps(session | {"answers": answers}, indent=1))
        return
    for result in results:
        show_outputs(terminal(), result, labels)
    if served is not None:
        _tell(served, program.cost(), "client", state is not None, False)


def run_here(
    program: Program,
    samples: Sequence[Mapping[str, object]],
    state: Path | None,
    truncate: bool,
    as_json: bool,
    joined: int | None = None,
) -> None:
    """`mpcc run` in one session of all parties on this machine, with stored shares if `state` says where.

    `joined`: how many inputs the samples stand for, if several of these share an inference.
    """
    from mpcc.batches import parted
    from mpcc.exchange import run_session
    from mpcc.report.program import result_json, show_outputs

    if state is not None:
        note(f"using the shares in {state}: no weight is sent")
    with stages(_STAGES, silent=as_json) as stage:
        results, served = run_session(program, samples, state, truncate=truncate, progress=stage)
    results = results if joined is None else parted(results, joined)
    for warning in dict.fromkeys(n for r in results for n in r.warnings):
        note(warning)
    labels = program.bundle.manifest.labels
    if as_json:
        printed = [result_json(r, labels) for r in results]
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=1))
        return
    for result in results:
        show_outputs(terminal(), result, labels)
    if served is not None:
        _tell(served, program.cost(), "", state is not None, False)


def _tell(served: Served, cost: Cost, role: str, stored: bool, as_json: bool) -> None:
    from mpcc.report.session import session_json, show_session

    if as_json:
        print(json.dumps(session_json(served, cost, role), indent=1))
    else:
        show_session(terminal(), served, cost, stored)


def _estimate(source: Path) -> Cost:
    """The estimate from the shared files alone."""
    from mpcc.loading import load

    return load(source, ()).cost()
