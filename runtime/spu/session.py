"""Sessions on SPU: the weights are shared once, then parties that stay up answer any number of requests.

All roles on this machine, or one role of several machines (`Site`). SPU has no port: it speaks through sockets in the
parties' folders, between machines with mpcc's tunnel behind them. Each party is given its own values only, and only the
client reconstructs.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mpcc.backends.spu.program import StableHlo
from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Answer, Arrays, Int64, Measured, OnAnswer, OnStage, Served
from mpcc.runtime.parties.agreement import Parts, part
from mpcc.runtime.parties.folders import environment, working_folder
from mpcc.runtime.parties.linked import plan_of, run_tunnelled
from mpcc.runtime.parties.processes import Limits, Party, run_parties
from mpcc.runtime.parties.requests import Answers, Feeder
from mpcc.runtime.parties.routes import spu_hosts, spu_routes
from mpcc.runtime.parties.site import Site, local_site
from mpcc.runtime.parties.watchdog import Watchdog
from mpcc.runtime.spu.folders import check_visibilities, compile_program, join_session, prepare, request_of, values_of
from mpcc.runtime.spu.protocols import DEFAULT_PROTOCOL, NAME, installed_version, protocol_of

_SENT = re.compile(r"Link details: total send bytes (\d+).*?send actions (\d+)")


def serve(
    program: StableHlo,
    requests: Iterable[Arrays] | None,
    *,
    public: Arrays,
    weights: Arrays | None,
    protocol: str = DEFAULT_PROTOCOL,
    parts: Parts | None = None,
    site: Site | None = None,
    limits: Limits | None = None,
    on_stage: OnStage = lambda stage: None,
    on_answer: OnAnswer = lambda number, answer: None,
) -> Served:
    """Compile the program and answer the client's requests (None where the client is not here) in one session.

    Args:
        requests: the client's arguments by tensor; one is asked for when the one before is on its way.
        public: what everybody holds, by tensor.
        weights: the provider's, by tensor; None where the provider is not here.
        parts: what all roles have to have in common besides what is run (`program_parts`).
        site: the roles that run here and where the others are; by default all roles are here.
        on_stage: called with "compile", "run" and "read" as they begin.
        on_answer: called with number and outputs of each request as they come.

    Raises:
        EngineError: with every process ended and the folder removed. The wheel is missing, a value does not belong to
            the owner that the program names, the engine refuses the program, or a party fails, stalls or is not known.
    """
    installed_version()
    here = site or local_site(protocol_of(protocol).roles)
    if "client" in here.identities and requests is None:
        raise EngineError("the client has no requests")
    check_visibilities(program, public)
    own = values_of(program, "provider", weights or {}) if "provider" in here.identities else {}
    chosen = limits or Limits()
    with working_folder() as (work, watchdog):
        on_stage("compile")
        seconds = compile_program(program, work / "program", watchdog)
        parties = prepare(program, protocol, public, own, here, chosen, work)
        on_stage("run")
        common = {**(parts or {}), **_own_parts(program, protocol)}
        with _fed(program, parties, requests, on_answer) as (answers, watch):
            _run_parties(parties, here, protocol_of(protocol).roles, common, watchdog, chosen, watch)
            watch()
        on_stage("read")
        return _served(program, protocol, parties, answers, seconds)


def _own_parts(program: StableHlo, protocol: str) -> Parts:
    """What is run, as every role has made it itself."""
    inputs = json.dumps([asdict(leaf) for leaf in program.inputs])
    return {
        "source": part(f"{program.text}\0{inputs}".encode()),
        "engine": part(f"{NAME} {installed_version()} {protocol}".encode()),
    }


@contextlib.contextmanager
def _fed(
    program: StableHlo, parties: Sequence[Party], requests: Iterable[Arrays] | None, on_answer: OnAnswer
) -> Iterator[tuple[Answers | None, Callable[[], None]]]:
    """Give the client's party one request after the other.

    What it receives (None if it is not here), and what has to be called again and again while the parties run.
    """
    client = next((p for p in parties if p.role == "client"), None)
    if client is None or requests is None:
        yield None, lambda: None
        return
    elements = sum(int(np.prod(i.shape)) for i in program.inputs if i.owner == "client")
    results = tuple((o.name, int(np.prod(o.shape))) for o in program.outputs)

    def answered(number: int, answer: dict[str, Int64]) -> None:
        on_answer(number, _floats(program, answer))

    answers = Answers(client.folder / "answers.bin", results, answered)
    stream = (request_of(program, values) for values in requests)
    feeder = Feeder(client.folder / "requests", np.zeros(0, np.int64), stream, elements)

    def watch() -> None:
        feeder.check()
        answers.collect()

    try:
        yield answers, watch
    finally:
        feeder.close()


def _run_parties(
    parties: list[Party],
    site: Site,
    roles: Sequence[str],
    parts: Parts,
    watchdog: Watchdog,
    limits: Limits,
    watch: Callable[[], None],
) -> None:
    """Run the parties to their end; one that is alone on this host behind a tunnel."""
    if site.addresses is None:
        session = secrets.token_hex(32)
        for party in parties:
            join_session(party, session)
        return run_parties(parties, watchdog, environment(), limits, spu_hosts(roles), watch)
    (party,) = parties
    plan = plan_of(site, party, roles, parts, spu_routes(party.player, len(roles)))
    return run_tunnelled(
        party, watchdog, limits, plan, watch, before=lambda tunnel: join_session(party, tunnel.session)
    )


# ** results **
def _floats(program: StableHlo, answer: Mapping[str, Int64]) -> Answer:
    """An answer's bits as the numbers that they are."""
    return {o.name: answer[o.name].view(np.float64).astype(np.float32).reshape(o.shape) for o in program.outputs}


def _served(
    program: StableHlo, protocol: str, parties: Sequence[Party], answers: Answers | None, compile_seconds: float
) -> Served:
    """Put the answers, the parties' reports and the engine's own counters together."""
    reports = [_report(party) for party in parties]
    counts = [_sent(party) for party in parties]
    done = len(answers.done) if answers is not None else len(counts[0])
    for party, report, count in zip(parties, reports, counts, strict=True):
        if len(count) != done or len(report) != done + 1:
            raise EngineError("a party did not report what it sent", where=f"party {party.player}")
    if not done or (answers is not None and answers.rest):
        raise EngineError("the client received less than the program promises", where="party 0")
    measured = tuple(_one([c[n] for c in counts], [r[n + 1] for r in reports]) for n in range(done))
    return Served(
        NAME,
        protocol,
        protocol_of(protocol).roles,
        tuple(p.player for p in parties),
        tuple(_floats(program, a) for a in answers.done) if answers is not None else tuple({} for _ in range(done)),
        measured,
        weights_bytes=sum(int(r[0]["weights"]) for r in reports),
        weights_seconds=max(r[0]["seconds"] for r in reports),
        compile_seconds=compile_seconds,
        control_bytes=sum(m.control_bytes for m in measured),
    )


def _report(party: Party) -> list[dict[str, Any]]:
    path = party.folder / "report.jsonl"
    return [json.loads(line) for line in path.read_text("ascii").splitlines()] if path.is_file() else []


def _sent(party: Party) -> list[tuple[int, int]]:
    """(bytes, messages) of each inference, as the engine logs them."""
    log = party.stdout.read_text("utf-8", "replace") + party.stderr.read_text("utf-8", "replace")
    return [(int(size), int(actions)) for size, actions in _SENT.findall(log)]


def _one(counts: Sequence[tuple[int, int]], reports: Sequence[Mapping[str, Any]]) -> Measured:
    """One inference by itself; its rounds are messages, an upper bound."""
    return Measured(
        engine=NAME,
        bytes_by_party=tuple(size for size, _ in counts),
        rounds_by_party=tuple(n for _, n in counts),
        seconds=max(r["seconds"] for r in reports),
        provisioning_bytes=0,
        provisioning_seconds=0.0,
        input_bytes=sum(int(r["input"]) for r in reports),
        compile_seconds=0.0,
        control_bytes=sum(int(r["control"]) for r in reports),
    )
