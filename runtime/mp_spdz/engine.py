"""The engine that runs the emitted source on the MP-SPDZ of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mpcc.compiler.errors import EngineError, MpccError
from mpcc.compiler.protocols import PROTOCOLS, protocol_of
from mpcc.runtime.deployment import Deployment, reals
from mpcc.runtime.engine import (
    Answer,
    Arrays,
    Availability,
    Engine,
    Finding,
    Int64,
    OnAnswer,
    OnStage,
    Options,
    Provisioned,
    Request,
    Served,
    Status,
    without_client,
)
from mpcc.runtime.mp_spdz import session
from mpcc.runtime.mp_spdz import state as states
from mpcc.runtime.mp_spdz.emitted import Emitted, client_stream, emitted, provider_stream
from mpcc.runtime.mp_spdz.home import NAME, VARIABLE, Home, find_home, setup_of
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.parties.site import Site

SIMPLEST = "ring"  # the protocol whose party program is asked for where no program says which


@dataclass(frozen=True)
class MpSpdz(Engine):
    """MP-SPDZ; what it runs is in the bundle, so no option is its own."""

    name: ClassVar[str] = NAME
    secure: ClassVar[bool] = True
    stores_shares: ClassVar[bool] = True
    has_parties: ClassVar[bool] = True
    estimated: ClassVar[bool] = True
    keeps_states: ClassVar[bool] = True

    @classmethod
    def configured(cls, options: Options) -> MpSpdz:
        """None of the options concerns it."""
        return cls()

    # ** whether it is here **
    def check(self) -> None:
        """See `Engine.check`."""
        find_home()

    def availability(self) -> Availability:
        """Where it is, or why it is not."""
        given = os.environ.get(VARIABLE, "")
        try:
            self.check()
        except EngineError as error:
            why = f"cannot be used ({error.what})" if given else "does not say where MP-SPDZ is"
            return Availability(False, f"{VARIABLE} {why}", "set up MP-SPDZ")
        return Availability(True, f"{VARIABLE} is {given}")

    def examine(self, protocol: str | None) -> Iterator[Finding]:
        """MP-SPDZ itself, and each party program; a missing one is a failure only for the protocol that is needed."""
        try:
            home = find_home()
        except EngineError as error:
            found = error.what + (f" ({error.where})" if error.where else "")
            yield Finding("MP-SPDZ", "fail", found, error.todo)
            return
        yield Finding("MP-SPDZ", "ok", f"{home.release} at {home.path}")
        for name in PROTOCOLS:
            yield _party_program(home, name, needed=name == (protocol or SIMPLEST))

    # ** who takes part **
    def protocol(self, compiled: str) -> str:
        """The one that the program was compiled for."""
        setup_of(compiled)
        return compiled

    def roles(self, compiled: str) -> tuple[str, ...]:
        """See `Engine.roles`."""
        return setup_of(compiled).roles

    # ** what it does **
    def run(
        self,
        program: Deployment,
        requests: Iterable[Request],
        weights: Arrays | None,
        *,
        state: Path | None = None,
        site: Site | None = None,
        limits: Limits | None = None,
        on_stage: OnStage = lambda stage: None,
        on_answer: OnAnswer = lambda number, answer: None,
    ) -> Served:
        """See `Engine.run`; with both `state` and `weights` the stored shares must be of these."""
        what = emitted(program)
        stream = None if weights is None else provider_stream(program, weights)
        if state is not None and stream is not None:
            states.check_weights(state, stream)

        asked: list[Deployment] = []

        def streams() -> Iterator[Int64]:
            for request in requests:
                asked.append(program.steps[request.step])
                yield client_stream(program, request)

        def answered(number: int, answer: Answer) -> None:
            on_answer(number, reals(asked[number], answer))

        served = session.serve(
            what,
            streams(),
            weights=None if state is not None else stream,
            state=state,
            site=site,
            limits=limits,
            on_stage=on_stage,
            on_answer=answered,
        )
        received = zip(asked, served.answers, strict=False)  # a request may have been made that nobody answered
        return replace(served, answers=tuple(reals(step, answer) for step, answer in received))

    def serve(
        self,
        program: Deployment,
        weights: Arrays | None,
        site: Site,
        *,
        state: Path | None = None,
        limits: Limits | None = None,
        most_requests: int | None = None,
        on_stage: OnStage = lambda stage: None,
    ) -> Served:
        """See `Engine.serve`."""
        stream = None if weights is None or state is not None else provider_stream(program, weights)
        return session.serve(
            emitted(program),
            None,
            weights=stream,
            state=state,
            site=without_client(site),
            limits=limits,
            most_requests=most_requests,
            on_stage=on_stage,
        )

    def provision(
        self,
        program: Deployment,
        weights: Arrays | None,
        state: Path,
        *,
        site: Site | None = None,
        limits: Limits | None = None,
        on_stage: OnStage = lambda stage: None,
    ) -> Provisioned:
        """See `Engine.provision`. MpccError if shares of this protocol, or of this program, cannot be stored."""
        if not protocol_of(program.protocol).stored_shares:
            raise MpccError(
                f"shares of {program.protocol} cannot be stored: their tags are valid in one run only",
                todo="run without provisioning",
            )
        what: Emitted = emitted(program)
        if not what.outputs:
            raise MpccError("nothing of this program is computed in MPC: there is nothing to provision")
        stream = None if weights is None else provider_stream(program, weights)
        return session.provision(what, stream, state, site, limits=limits, on_stage=on_stage)


def _party_program(home: Home, protocol: str, *, needed: bool) -> Finding:
    """Whether the program that a party of the protocol runs is built."""
    binary = home.path / PROTOCOLS[protocol].binary
    if binary.is_file() and os.access(binary, os.X_OK):
        return Finding(f"protocol {protocol}", "ok", binary.name)
    found = f"{binary.name} {'cannot be executed' if binary.is_file() else 'is not built'}"
    status: Status = "fail" if needed else "warn"
    return Finding(f"protocol {protocol}", status, found, f"build it: make -C {home.path} {binary.name}")
