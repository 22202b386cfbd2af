"""The engine that pip installs: SecretFlow SPU, which computes from the float graph of what is inside MPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mpcc.compiler.errors import EngineError
from mpcc.runtime.deployment import Deployment
from mpcc.runtime.engine import (
    Arrays,
    Availability,
    Engine,
    Finding,
    OnAnswer,
    OnStage,
    Options,
    Request,
    Served,
    without_client,
)
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.parties.site import Site
from mpcc.runtime.program_digest import program_parts
from mpcc.runtime.spu import protocols, session
from mpcc.runtime.spu.code import code_of


@dataclass(frozen=True)
class Spu(Engine):
    """SPU with one of its protocols, whatever protocol the program was compiled for."""

    spoken: str = protocols.DEFAULT_PROTOCOL

    name: ClassVar[str] = protocols.NAME
    secure: ClassVar[bool] = True
    has_parties: ClassVar[bool] = True
    exchanges: ClassVar[str] = "messages"
    unprovisioned: ClassVar[str] = "it shares the weights once in every session, however many inputs it has"

    @classmethod
    def configured(cls, options: Options) -> Spu:
        """With the protocol of the options. EngineError if SPU has no such one."""
        protocols.protocol_of(options.spu_protocol)
        return cls(options.spu_protocol)

    # ** whether it is here **
    def check(self) -> None:
        """See `Engine.check`."""
        protocols.installed_version()

    def availability(self) -> Availability:
        """Its version, or how to install it."""
        try:
            return Availability(True, f"SPU {protocols.installed_version()} is installed")
        except EngineError as error:
            return Availability(False, "SPU is not installed", error.todo)

    def examine(self, protocol: str | None) -> Iterator[Finding]:
        """Its version."""
        check = f"engine {self.name}"
        try:
            yield Finding(check, "ok", protocols.installed_version())
        except EngineError as error:
            yield Finding(check, "fail", "not installed", error.todo)

    # ** who takes part **
    def protocol(self, compiled: str) -> str:
        """Its own one."""
        return self.spoken

    def roles(self, compiled: str) -> tuple[str, ...]:
        """See `Engine.roles`."""
        return protocols.protocol_of(self.spoken).roles

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
        """See `Engine.run`. UnsupportedError for an operation that it has no form of."""
        if state is not None:
            raise self.nothing_stored()
        return session.serve(
            code_of(program),
            (request.values for request in requests),
            public=program.public,
            weights=weights,
            protocol=self.spoken,
            parts=program_parts(program),
            site=site,
            limits=limits,
            on_stage=on_stage,
            on_answer=on_answer,
        )

    def serve(
        self,
        program: Deployment,
        weights: Arrays | None,
        site: Site,
        *,
        state: Path | None = None,
        limits: Limits | None = None,
        on_stage: OnStage = lambda stage: None,
    ) -> Served:
        """See `Engine.serve`."""
        if state is not None:
            raise self.nothing_stored()
        return session.serve(
            code_of(program),
            None,
            public=program.public,
            weights=weights,
            protocol=self.spoken,
            parts=program_parts(program),
            site=without_client(site),
            limits=limits,
            on_stage=on_stage,
        )
