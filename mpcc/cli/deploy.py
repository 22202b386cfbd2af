"""Commands for deployments: `mpcc provision | split | keys | party`.

Nothing here imports torch before the client's own part is needed: provider and helper do without.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpcc.cli import files
from mpcc.cli.console import note, stages, terminal
from mpcc.cli.options import JsonFlag, ProgramPath, StateOption, TracebackFlag
from mpcc.compiler.errors import EngineError, MpccError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpcc.program import Program
    from mpcc.runtime.engine import Engine, Served
    from mpcc.runtime.parties.processes import Limits
    from mpcc.runtime.parties.site import Site

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
    from mpcc.exchange import default_state, provision_program
    from mpcc.report.session import show_provisioned

    if model is None and (base is not None or calibration is not None):
        raise MpccError("--base and --calibration go with --model", todo="name the new fine-tune with --model")
    chosen = check_provisioning(engine)
    target = state or default_state(program)
    with stages(_STAGES, silent=as_json) as stage:
        loaded = files.load(program)
        if model is not None:
            samples = files.read_inputs(calibration) if calibration is not None else []
            if not samples:
                note("the new weights' ranges are not checked: give --calibration, or see mpcc verify --layers")
            loaded = loaded.with_weights(model, base=base, calibration=samples, allow_pickle=allow_pickle)
            loaded.save(program)
        done = provision_program(loaded, chosen, target, progress=stage)
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
    from mpcc.loading import load
    from mpcc.runtime.engines import DEFAULT, engine_named
    from mpcc.split import split_program

    shared = load(program, ())
    for path in split_program(program, out, engine_named(DEFAULT).roles(shared.protocol)):
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
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="The provider's: end the session after so many requests.")
    ] = None,
    public_input: Annotated[
        list[str] | None,
        typer.Option(help="The client's word that everybody may learn this input; may be given again."),
    ] = None,
    accept: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Take part only in the program of this digest; see mpcc audit.")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    engine: Annotated[str | None, typer.Option(help="mp-spdz (unless given) or spu, the same for all roles.")] = None,
    spu_protocol: Annotated[str, typer.Option(help="Of spu: aby3 (three parties) or cheetah (two).")] = "aby3",
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Run one role. All roles start within --wait seconds, all with --provision, all with --state, or all without."""
    from mpcc.compiler.bundle.contents import ROLES as OWNERS
    from mpcc.compiler.bundle.files import path_pair
    from mpcc.loading import load
    from mpcc.runtime.engine import Options
    from mpcc.runtime.engines import DEFAULT, engine_named
    from mpcc.runtime.parties.hosts import site_of
    from mpcc.runtime.parties.processes import Limits

    source, _ = path_pair(program)
    if (role == "client" and not provision_only) != (input_file is not None):
        raise MpccError("the client needs --input, and nobody else does")
    if max_requests is not None and (role != "provider" or provision_only):
        raise MpccError("--max-requests is for the provider, who answers requests", todo="leave it out")
    chosen = engine_named(engine or DEFAULT, Options(spu_protocol))
    if not chosen.has_parties:
        raise chosen.no_parties()
    if (provision_only or state is not None) and not chosen.stores_shares:
        raise chosen.nothing_stored()
    loaded = load(source, {role} & set(OWNERS))
    _show_or_refuse(loaded, role, chosen, accept)
    chosen.check()
    site = site_of(hosts, role, chosen.roles(loaded.protocol))
    task = _Task(source, loaded, role, chosen, site, Limits(wait, idle), state, as_json)
    if provision_only:
        _provision(task)
    elif input_file is not None:
        _check_agreed(loaded, public_input or ())
        _ask(task, input_file, truncate)
    else:
        _serve(task, max_requests)


def _show_or_refuse(program: Program, role: str, engine: Engine, accepted: str | None) -> None:
    """Say in a few lines what the role is about to take part in.

    MpccError if the protocol has no such role, or if it is not the program that was accepted.
    """
    from mpcc.audit import audit, check_accepted, check_role
    from mpcc.compiler.protocols import described
    from mpcc.report.audit import short_lines

    audited = audit(program, described(engine.protocol(program.protocol)))
    check_role(audited, role)
    if accepted is not None:
        check_accepted(audited.digest, accepted)
    for line in short_lines(audited, role):
        note(line)


@dataclass(frozen=True)
class _Task:
    """What a role on its own host is to do, and with what."""

    source: Path
    program: Program
    role: str
    engine: Engine
    site: Site
    limits: Limits
    state: Path | None
    as_json: bool

    @property
    def weights(self) -> Mapping[str, NDArray[Any]] | None:
        """The provider's weights, where this is the provider and they are needed."""
        return self.program.provider_weights() if self.role == "provider" else None


def _provision(task: _Task) -> None:
    """Share the weights with the others, and store this role's shares."""
    from mpcc.exchange import default_state
    from mpcc.report.session import show_provisioned

    target = task.state or default_state(task.source)
    with stages(_STAGES, silent=task.as_json) as stage:
        done = task.engine.provision(
            task.program.deployment(),
            task.weights,
            target,
            site=task.site,
            limits=task.limits,
            on_stage=stage,
        )
    if task.as_json:
        print(json.dumps(vars(done) | {"state": str(target), "role": task.role}, indent=1))
    else:
        show_provisioned(terminal(), done, str(target))


def _serve(task: _Task, most_requests: int | None) -> None:
    """Take part as provider or helper until the client has no more requests, or the provider answers no more."""
    from mpcc.report.session import session_json, show_session

    with stages(_STAGES, silent=task.as_json) as stage:
        served = task.engine.serve(
            task.program.deployment(),
            task.weights if task.state is None else None,
            task.site,
            state=task.state,
            limits=task.limits,
            most_requests=most_requests,
            on_stage=stage,
        )
    if served.limit_reached:
        note(_limit_in_words(served))
    if task.as_json:
        print(json.dumps(session_json(served, task.program.cost(), task.role), indent=1))
    else:
        show_session(terminal(), served, task.program.cost())


def _check_agreed(program: Program, agreed: Sequence[str]) -> None:
    """The bundle's author alone does not decide that others may learn an input of the client."""
    public = [i.name for i in program.bundle.manifest.inputs if i.role == "public"]
    if asked := [name for name in public if name not in agreed]:
        raise MpccError(
            f"this program tells the input {asked[0]} to every party",
            todo=f"say that they may learn it, with --public-input {asked[0]}, or do not run it",
        )


def _ask(task: _Task, input_file: Path, truncate: bool) -> None:
    """The client: prepares its inputs, and is the only one to print outputs."""
    from mpcc.cli.answers import show_client, speaker, tell_warnings
    from mpcc.exchange import run_session

    spoken = str(input_file) == "-"
    samples = files.spoken_lines() if spoken else files.read_inputs(input_file)
    with stages(_STAGES, silent=task.as_json or spoken) as stage:
        results, served = run_session(
            task.program,
            samples,
            task.engine,
            state=task.state,
            site=task.site,
            truncate=truncate,
            limits=task.limits,
            progress=stage,
            on_result=speaker(task.program) if spoken else None,
        )
    if spoken:
        tell_warnings(results)
    else:
        show_client(task.program, results, served, as_json=task.as_json)
    if served is None or not served.limit_reached:
        return
    if isinstance(samples, list) and len(samples) > len(results):
        raise EngineError(
            f"{_limit_in_words(served)}; {len(samples) - len(results)} of yours have no answer",
            todo="agree on another session",
        )
    note(_limit_in_words(served))


def _limit_in_words(served: Served) -> str:
    most = served.most_requests or 0
    return f"the provider answers {most} request{'s' if most != 1 else ''} a session"
