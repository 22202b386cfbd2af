"""The spu engine's side of `mpcc run` and `mpcc party`. Provider and helper do without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.cli.console import note, stages, terminal
from mpcc.compiler.errors import MpccError
from mpcc.runtime.parties.hosts import site_of
from mpcc.runtime.spu.part import read_code, read_private, read_public
from mpcc.runtime.spu.protocols import installed_version, protocol_of

if TYPE_CHECKING:
    from mpcc.backends.spu.program import StableHlo
    from mpcc.program import Program
    from mpcc.result import Result
    from mpcc.runtime.mp_spdz.session import Site
    from mpcc.runtime.parties.processes import Limits

_STAGES = 3
NOTHING_STORED = "the spu engine stores no shares: it shares the weights once in every session"


def run_here(
    program: Program, samples: Sequence[Mapping[str, object]], protocol: str, truncate: bool, as_json: bool
) -> None:
    """`mpcc run` in one session of all parties on this machine."""
    from mpcc.report.program import result_json, show_outputs
    from mpcc.report.spu import show_spu_session
    from mpcc.spu_exchange import run_spu_session

    with stages(_STAGES, silent=as_json) as stage:
        results, served = run_spu_session(program, samples, protocol=protocol, truncate=truncate, progress=stage)
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
        terminal().print()
        show_spu_session(terminal(), served, protocol, program.cost())


def party(
    source: Path,
    role: str,
    hosts: Path,
    protocol: str,
    limits: Limits,
    truncate: bool,
    as_json: bool,
    samples: Iterable[Mapping[str, object]] | None,
    spoken: bool,
) -> None:
    """`mpcc party --engine spu`: one role on its own host; `samples` are the client's, one a line where `spoken`.

    Raises:
        MpccError: the file of hosts is wrong, or the protocol has no such role.
        BundleError, EngineError: see `read_code`, `site_of` and `spu_session.serve`.
    """
    chosen = protocol_of(protocol)
    if role not in chosen.roles:
        raise MpccError(f"{protocol} has no role {role!r}", todo=f"its roles: {', '.join(chosen.roles)}")
    installed_version()
    code, site = read_code(source), site_of(hosts, role, chosen.hosts_like)
    if samples is not None:
        _client(source, code, site, protocol, limits, truncate, as_json, samples, spoken)
        return
    from mpcc.report.spu import show_spu_session, spu_json
    from mpcc.runtime.spu.session import serve

    weights = read_private(source) if role == "provider" else None
    with stages(_STAGES, silent=as_json) as stage:
        served = serve(
            code,
            None,
            public=read_public(source),
            weights=weights,
            protocol=protocol,
            site=site,
            limits=limits,
            on_stage=stage,
        )
    if as_json:
        print(json.dumps(spu_json(served, protocol, role), indent=1))
    else:
        show_spu_session(terminal(), served, protocol)


def _client(
    source: Path,
    code: StableHlo,
    site: Site,
    protocol: str,
    limits: Limits,
    truncate: bool,
    as_json: bool,
    samples: Iterable[Mapping[str, object]],
    spoken: bool,
) -> None:
    """The client: prepares its inputs, and is the only one to print outputs."""
    from mpcc.loading import load
    from mpcc.report.program import result_json, show_outputs
    from mpcc.report.spu import show_spu_session, spu_json
    from mpcc.spu_exchange import run_spu_session

    program = load(source, {"client"})
    labels = program.bundle.manifest.labels

    def told(result: Result) -> None:
        outputs = result_json(result, labels)
        print(json.dumps({name: outputs[name] for name in ("outputs", "labels")}), flush=True)

    with stages(_STAGES, silent=as_json or spoken) as stage:
        results, served = run_spu_session(
            program,
            samples,
            code=code,
            protocol=protocol,
            site=site,
            limits=limits,
            truncate=truncate,
            progress=stage,
            on_result=told if spoken else None,
        )
    for warning in dict.fromkeys(n for r in results for n in r.warnings):
        note(warning)
    if spoken:
        return
    if as_json:
        session = spu_json(served, protocol, "client") if served is not None else {}
        print(json.dumps(session | {"answers": [result_json(r, labels) for r in results]}, indent=1))
        return
    for result in results:
        show_outputs(terminal(), result, labels)
    if served is not None:
        terminal().print()
        show_spu_session(terminal(), served, protocol, program.cost())
