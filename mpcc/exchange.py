"""Programs on an engine: sessions of any number of inferences, and provisioning; all parties here, or the client alone.

The engine is asked for what it can do; which one it is makes no difference here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mpcc.compiler.errors import EngineError
from mpcc.result import Result
from mpcc.runtime.engine import Answer, Engine, Measured, Provisioned, Request, Served

if TYPE_CHECKING:
    from mpcc.compiler.cost import Cost
    from mpcc.program import Prepared, Program
    from mpcc.runtime.parties.processes import Limits
    from mpcc.runtime.parties.site import Site

Progress = Callable[[str], None]
STATE_SUFFIX = ".state"


def default_state(program: Path) -> Path:
    """Where `mpcc provision` stores shares unless told otherwise: prog.state beside prog.mpc."""
    return program.with_suffix(STATE_SUFFIX)


def provision_program(
    program: Program, engine: Engine, state: Path, *, progress: Progress | None = None
) -> Provisioned:
    """See `Program.provision`."""
    shared, weights = program.deployment(), program.provider_weights()
    return engine.provision(shared, weights, state, on_stage=progress or (lambda stage: None))


def run_session(
    program: Program,
    inputs: Iterable[Mapping[str, object]],
    engine: Engine,
    *,
    state: Path | None = None,
    site: Site | None = None,
    truncate: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> tuple[list[Result], Served | None]:
    """See `Program.run_many`; with `site` only the client runs here.

    The first result's measurement has in it what is done once: sharing the weights, and compiling. None for the session
    if nothing is secret.
    """
    session = _Session(program, engine, truncate, program.cost(), on_result)
    if all(o.clear for o in program.bundle.manifest.outputs):  # the client computes it all
        return [session.result(program.prepared(given, truncate), {}, None) for given in inputs], None
    requests = session.requests(inputs)
    if isinstance(inputs, Sequence):
        requests = _with_first(requests)
    here_whole = site is None and (state is None or program.bundle.provider is not None)
    served = engine.run(
        program.deployment(),
        requests,
        program.provider_weights() if here_whole else None,
        state=state,
        site=site,
        limits=limits,
        on_stage=progress or (lambda stage: None),
        on_answer=session.answered,
    )
    return session.results(served), served


def _with_first(requests: Iterator[Request]) -> Iterator[Request]:
    """The requests, with the first one made already: what is wrong with it is said before anything is started."""
    first = next(requests, None)
    if first is None:
        raise EngineError("a session needs at least one request")
    return chain([first], requests)


@dataclass
class _Session:
    """Inputs on their way in, and results on their way out."""

    program: Program
    engine: Engine
    truncate: bool
    estimated: Cost
    on_result: Callable[[Result], None] | None
    prepared: list[Prepared] = field(default_factory=list)

    def requests(self, inputs: Iterable[Mapping[str, object]]) -> Iterator[Request]:
        """One request for each input, made when it is asked for."""
        for given in inputs:
            self.prepared.append(self.program.prepared(given, self.truncate))
            yield self.prepared[-1].request

    def answered(self, number: int, answer: Answer) -> None:
        """Tell a result before it is known what it cost."""
        if self.on_result is not None:
            self.on_result(self.result(self.prepared[number], answer, None))

    def results(self, served: Served) -> list[Result]:
        """All results, with what each cost."""
        first = replace(
            served.measured[0],
            provisioning_bytes=served.weights_bytes,
            provisioning_seconds=served.weights_seconds,
            compile_seconds=served.compile_seconds,
        )
        measured = (first, *served.measured[1:])
        answered = self.prepared[: len(served.answers)]  # the provider may answer fewer
        rows = zip(answered, served.answers, measured, strict=True)
        return [self.result(prepared, answer, cost) for prepared, answer, cost in rows]

    def result(self, prepared: Prepared, answer: Answer, measured: Measured | None) -> Result:
        """A result: what the client computed in clear, and what it received."""
        outputs = self.program.outputs(prepared, answer)
        seconds = 0.0 if measured is None else measured.seconds
        counted = measured if self.engine.exchanges else None
        return Result(outputs, self.engine.name, seconds, counted, self.estimated, prepared.warnings)
