"""Sessions of MP-SPDZ: weights are shared once, then parties that stay up answer any number of requests.

All roles on this machine, or one role of several machines: a `Site` says which roles run here and where the others are.
Every party runs in a folder of its own with nothing of another's in it:

    <role>/Programs      the byte code (a link into the state, or into the folder where it was compiled)
    <role>/Persistence   its shares (a link into its state)
    <role>/Player-Data   its key, everybody's certificates, its input
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Int64, OnAnswer, OnStage, Provisioned, Served
from mpcc.runtime.mp_spdz import state as states
from mpcc.runtime.mp_spdz.build import INFER, PROVISION, SERVE, compile_source, party_command
from mpcc.runtime.mp_spdz.counters import NO_LIMIT, Timer, check_counts, counts_of, inference, limit_of, total
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.home import NAME, Home, find_home, party_binary, setup_of
from mpcc.runtime.parties.agreement import part
from mpcc.runtime.parties.folders import environment, working_folder
from mpcc.runtime.parties.keys import install, write_private
from mpcc.runtime.parties.linked import plan_of, run_tunnelled
from mpcc.runtime.parties.processes import Limits, Party, free_ports, run_parties
from mpcc.runtime.parties.requests import Answers, Feeder
from mpcc.runtime.parties.routes import mp_spdz_routes, ports_needed
from mpcc.runtime.parties.site import Site, local_site
from mpcc.runtime.parties.watchdog import Watchdog


# ** provisioning **
def provision(
    program: Emitted,
    weights: Int64 | None,
    state: Path,
    site: Site | None = None,
    *,
    home: Path | None = None,
    limits: Limits | None = None,
    on_stage: OnStage = lambda stage: None,
) -> Provisioned:
    """Share the private weights (None where the provider is not here) and store the shares below `state`.

    Both modes are compiled unless byte code of this very program stands there. The old state stays until the new one is
    complete. EngineError as `serve`.
    """
    if "provider" in (here := site or local_site(setup_of(program.protocol).roles)).identities:
        _check_weights(program, weights)
    found = find_home(home)
    binary = party_binary(found, program.protocol)
    staged: dict[str, Path] = {}
    with working_folder() as (work, watchdog):
        try:
            for role in here.identities:
                staged[role] = states.staging(state, role)
                watchdog.removes(staged[role])
            seconds = _byte_code(program, found, state, staged, work, watchdog, on_stage)
            head = None if weights is None else np.append(weights, np.int64(states.SEAL))
            parties = [_party(role, folder, work, here, program, binary, PROVISION) for role, folder in staged.items()]
            for party in parties:
                _give(party, head if party.role == "provider" and head is not None else np.zeros(0, np.int64))
            on_stage("provision")
            try:
                _run_parties(program, parties, here, found, watchdog, limits, PROVISION)
            except EngineError as error:
                states.check_room(state, error)
                raise
            for party in parties:
                own = weights if party.role == "provider" else None
                states.seal_state(staged[party.role], party.role, party.player, program, found.release, own)
            for role, folder in staged.items():
                states.install_state(folder, state, role)
            sent = [total(counts_of(p), Timer.WEIGHTS) for p in parties]
            return Provisioned(
                program.private_elements, sum(b for _, b, _ in sent), max(s for s, _, _ in sent), seconds, seconds > 0
            )
        finally:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)


def _check_weights(program: Emitted, weights: Int64 | None) -> None:
    if weights is None or weights.size != program.private_elements:
        raise EngineError(
            f"the provider has {0 if weights is None else weights.size} weights, the program takes "
            f"{program.private_elements}",
            todo="use the weights that the program was compiled with",
        )


def _byte_code(
    program: Emitted,
    home: Home,
    state: Path,
    staged: dict[str, Path],
    work: Path,
    watchdog: Watchdog,
    on_stage: OnStage,
) -> float:
    """Put the byte code of both modes into every staged folder; seconds of compiling, 0 if it was there."""
    if all(states.has_byte_code(state, role, program, home.release) for role in staged):
        for role, folder in staged.items():
            states.copy_programs(state / role / states.PROGRAMS, folder)
        return 0.0
    on_stage("compile")
    seconds = sum(
        compile_source(program.source, program.protocol, home, work / "program", watchdog, mode)
        for mode in (PROVISION, INFER)
    )
    for folder in staged.values():
        states.copy_programs(work / "program" / "Programs", folder)
    return seconds


# ** serving **
def serve(
    program: Emitted,
    requests: Iterable[Int64] | None,
    *,
    weights: Int64 | None = None,
    state: Path | None = None,
    site: Site | None = None,
    home: Path | None = None,
    limits: Limits | None = None,
    most_requests: int | None = None,
    on_stage: OnStage = lambda stage: None,
    on_answer: OnAnswer = lambda number, answer: None,
) -> Served:
    """Answer the client's requests (None where the client is not here) in one session of all parties.

    With `state` the shares stored there are used; without, `weights` are shared first. The provider ends the session
    after `most_requests`. `on_answer` gets number and outputs of each request as they come.
    EngineError, with every process ended and the working folder removed (with MPCC_KEEP_WORK=1 it stays): MP-SPDZ is
    missing or too old, it refuses the source, a state is not this program's or not whole, a party fails or stalls, or
    the outputs are not what the program says.
    """
    here = site or local_site(setup_of(program.protocol).roles)
    if "client" in here.identities and requests is None:
        raise EngineError("the client has no requests")
    found = find_home(home)
    binary = party_binary(found, program.protocol)
    if state is None and "provider" in here.identities:
        _check_weights(program, weights)
    for role in here.identities if state is not None else ():
        assert state is not None
        states.check_state(state, role, program, found.release)
    with working_folder() as (work, watchdog):
        seconds = 0.0
        if state is None:
            on_stage("compile")
            seconds = compile_source(program.source, program.protocol, found, work / "program", watchdog, SERVE)
        mode = SERVE if state is None else INFER
        parties = [
            _party(role, work / "program" if state is None else state / role, work, here, program, binary, mode)
            for role in here.identities
        ]
        own = weights if state is None else None
        on_stage("run")
        with _fed(program, parties, requests, own, most_requests, on_answer) as (answers, watch):
            _run_parties(program, parties, here, found, watchdog, limits, mode, watch)
            watch()
        on_stage("read")
        return _served(program, parties, answers, seconds, state is not None)


@contextlib.contextmanager
def _fed(
    program: Emitted,
    parties: Sequence[Party],
    requests: Iterable[Int64] | None,
    weights: Int64 | None,
    most_requests: int | None,
    on_answer: OnAnswer,
) -> Iterator[tuple[Answers | None, Callable[[], None]]]:
    """Give every party its input, the client's one request after the other.

    What the client receives (None if it is not here), and what has to be called again and again while they run.
    """
    feeder, answers = None, None
    try:
        for party in parties:
            if party.role == "client" and requests is not None:
                data = party.folder / "Player-Data"
                head = np.append(program.public_stream, NO_LIMIT)
                feeder = Feeder(_input(party), head, requests, [n for n, _ in program.steps])
                outputs = [o for _, o in program.steps]
                answers = Answers(data / "Binary-Output-P0-0", outputs, on_answer, feeder.asked)
            elif party.role == "provider":
                own = np.zeros(0, np.int64) if weights is None else weights
                most = NO_LIMIT if most_requests is None else most_requests
                _give(party, np.concatenate([program.public_stream, own, np.full(2, most, np.int64)]))
            else:
                _give(party, np.append(program.public_stream, NO_LIMIT))

        def watch() -> None:
            if feeder is not None and answers is not None:
                feeder.check()
                answers.collect()

        yield answers, watch
    finally:
        if feeder is not None:
            feeder.close()


def _run_parties(
    program: Emitted,
    parties: list[Party],
    site: Site,
    home: Home,
    watchdog: Watchdog,
    limits: Limits | None,
    mode: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run the parties to their end; one that is alone on this host behind a tunnel.

    Inside the tunnel they speak MP-SPDZ's own TLS, since MP-SPDZ listens on every interface: who finds that port gets
    no further than the handshake.
    """
    if site.addresses is None:
        return run_parties(parties, watchdog, environment(), limits or Limits(), watch=watch)
    (party,) = parties
    roles = setup_of(program.protocol).roles
    routes = mp_spdz_routes(party.player, len(roles), free_ports(ports_needed(party.player)))
    parts = {
        **program.parts,
        "source": part(program.source.encode()),
        "engine": part(f"{NAME} {home.release}".encode()),
        "use of --provision and --state": part(mode.encode()),
    }
    plan = plan_of(site, party, roles, parts, routes)
    return run_tunnelled(party, watchdog, limits or Limits(), plan, watch)


# ** the parties' folders **
def _party(role: str, source: Path, work: Path, site: Site, program: Emitted, binary: Path, mode: str) -> Party:
    """A party's working folder, whose byte code and shares stand in `source`."""
    folder, player = work / role, setup_of(program.protocol).roles.index(role)
    data = folder / "Player-Data"
    data.mkdir(parents=True, mode=0o700)
    (folder / "Programs").symlink_to((source / "Programs").resolve())
    if mode != SERVE:
        (folder / states.SHARES).symlink_to((source / states.SHARES).resolve())
    install(data, site.identities[role], site.certificates)
    return Party(player, role, folder, party_command(binary, player, mode))


def _input(party: Party) -> Path:
    return party.folder / "Player-Data" / f"Input-Binary-P{party.player}-0"


def _give(party: Party, stream: Int64) -> None:
    write_private(_input(party), stream.astype("<i8").tobytes())


# ** results **
def _served(
    program: Emitted, parties: Sequence[Party], answers: Answers | None, compile_seconds: float, stored: bool
) -> Served:
    """Put the answers and the parties' counters together."""
    counts = [counts_of(p) for p in parties]
    done = len(answers.done) if answers is not None else len(counts[0].get(Timer.INFERENCE, ()))
    if not done or (answers is not None and answers.rest):
        raise EngineError("the client received less than the program promises", where="party 0")
    for party, own in zip(parties, counts, strict=True):
        check_counts(party.player, own, done)
    weights = [total(own, Timer.WEIGHTS) for own in counts]
    return Served(
        NAME,
        program.protocol,
        setup_of(program.protocol).roles,
        tuple(p.player for p in parties),
        tuple(answers.done) if answers is not None else tuple({} for _ in range(done)),
        tuple(inference(counts, number) for number in range(done)),
        weights_bytes=sum(b for _, b, _ in weights),
        weights_seconds=max(s for s, _, _ in weights),
        compile_seconds=compile_seconds,
        control_bytes=sum(total(own, Timer.CONTROL)[1] for own in counts),
        stored=stored,
        most_requests=limit_of(parties[0]),
    )
