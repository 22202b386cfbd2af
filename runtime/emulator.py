"""The engine that computes in clear: for precision and debugging. It is always here, and protects nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mpcc.backends.emulator import EmulatorResult
from mpcc.backends.emulator import run as emulate
from mpcc.compiler.bundle.streams import encoded
from mpcc.compiler.errors import BundleError, EngineError, MpccError
from mpcc.runtime.deployment import Deployment, reals
from mpcc.runtime.engine import (
    Answer,
    Arrays,
    Availability,
    Engine,
    Finding,
    Int64,
    Measured,
    OnAnswer,
    OnStage,
    Options,
    Request,
    Served,
)
from mpcc.runtime.parties.processes import Limits
from mpcc.runtime.parties.site import Site

TRUNCATIONS = ("probabilistic", "nearest")


@dataclass(frozen=True)
class Emulator(Engine):
    """The ring program on plain integers; `truncation` is that of the program unless given."""

    seed: int = 0
    truncation: str | None = None

    name: ClassVar[str] = "emulator"
    secure: ClassVar[bool] = False
    exchanges: ClassVar[str] = ""
    traces: ClassVar[bool] = True
    keeps_states: ClassVar[bool] = True
    unprovisioned: ClassVar[str] = "it computes in clear, where nothing is shared"

    @classmethod
    def configured(cls, options: Options) -> Emulator:
        """With seed and truncation of the options. MpccError for an unknown truncation."""
        if options.truncation not in (None, *TRUNCATIONS):
            raise MpccError(
                f"unknown truncation {options.truncation!r}", todo=f"choose one of: {', '.join(TRUNCATIONS)}"
            )
        return cls(options.seed, options.truncation)

    # ** whether it is here **
    def check(self) -> None:
        """It is."""

    def availability(self) -> Availability:
        """Always."""
        return Availability(True, "it is a part of mpcc")

    def examine(self, protocol: str | None) -> Iterator[Finding]:
        """That it protects nothing."""
        yield Finding(f"engine {self.name}", "ok", "always here; it computes in clear and protects nothing")

    # ** who takes part **
    def protocol(self, compiled: str) -> str:
        """The one that the program was compiled for."""
        return compiled

    def roles(self, compiled: str) -> tuple[str, ...]:
        """Nobody: it is this process."""
        return ()

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
        """See `Engine.run`; every request starts from the same seed, and nothing is sent."""
        if state is not None:
            raise self.nothing_stored()
        if site is not None:
            raise self.no_parties()
        params = [self._params(step, weights) for step in program.steps]
        states: Mapping[str, Int64] = {}
        answers: list[Answer] = []
        measured: list[Measured] = []
        on_stage("run")
        for number, request in enumerate(requests):
            begin = time.perf_counter()
            step = program.steps[request.step]
            found = self._emulated(step, request, params[request.step], states, trace=False)
            states = found.states
            answers.append(reals(step, found.outputs))
            seconds = time.perf_counter() - begin
            measured.append(Measured(self.name, (), (), seconds, 0, 0.0, 0, 0.0))
            on_answer(number, answers[-1])
        if not answers:
            raise EngineError("a session needs at least one request")
        return Served(self.name, program.protocol, (), (), tuple(answers), tuple(measured))

    def observed(
        self, program: Deployment, request: Request, weights: Arrays | None, *, trace: bool = True
    ) -> tuple[Answer, EmulatorResult]:
        """The outputs of one request, and everything that was seen on the way: every value inside with `trace`."""
        found = self._emulated(program, request, self._params(program, weights), {}, trace=trace)
        return reals(program, found.outputs), found

    def _emulated(
        self,
        program: Deployment,
        request: Request,
        params: Mapping[str, Int64],
        states: Mapping[str, Int64],
        *,
        trace: bool,
    ) -> EmulatorResult:
        chosen = self.truncation or program.manifest.truncation
        mode: Literal["probabilistic", "nearest"] = "nearest" if chosen == "nearest" else "probabilistic"
        return emulate(
            program.ring, request.shared, params, truncation=mode, seed=self.seed, trace=trace, states=states
        )

    def _params(self, program: Deployment, weights: Arrays | None) -> dict[str, Int64]:
        """All weights as ring elements."""
        if weights is None:
            raise BundleError(
                "the bundle has no provider/ folder here", todo="only the provider has the private weights"
            )
        manifest = program.manifest
        return encoded(manifest.private_weights, weights) | encoded(manifest.public_weights, program.public)
