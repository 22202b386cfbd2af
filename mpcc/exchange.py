"""Programs in sessions: weights shared once, then any number of inferences; all parties here, or the client alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpcc.backends.mp_spdz.dialects import check_source
from mpcc.compiler.bundle.role_part import layout_digest
from mpcc.compiler.errors import EngineError, MpccError
from mpcc.compiler.protocols import protocol_of
from mpcc.runtime.engine import Deployment, Int64, Provisioned, Served
from mpcc.runtime.mp_spdz import session as sessions
from mpcc.runtime.mp_spdz import state as states

if TYPE_CHECKING:
    import torch

    from mpcc.program import Program
    from mpcc.result import Result
    from mpcc.runtime.mp_spdz.session import Site
    from mpcc.runtime.parties.processes import Limits

Progress = Callable[[str], None]
STATE_SUFFIX = ".state"


def default_state(program: Path) -> Path:
    """Where `mpcc provision` stores shares unless told otherwise: prog.state beside prog.mpc."""
    return program.with_suffix(STATE_SUFFIX)


def deployment(program: Program) -> Deployment:
    """What every role of the program knows."""
    manifest = program.bundle.manifest
    check_source(program.source, program.protocol)
    outputs = tuple((o.name, int(np.prod(o.shape, dtype=np.int64))) for o in manifest.outputs if not o.clear)
    elements = sum(n.type.elements for n in program.bundle.ring if n.op == "input")
    layout = layout_digest(json.loads(json.dumps([asdict(p) for p in manifest.private_weights])))
    return Deployment(
        program.source, program.protocol, layout, program.public_stream(), manifest.private_elements, elements, outputs
    )


def provision_program(program: Program, state: Path, *, progress: Progress | None = None) -> Provisioned:
    """See `Program.provision`."""
    if not protocol_of(program.protocol).stored_shares:
        raise MpccError(
            f"shares of {program.protocol} cannot be stored: their tags are valid in one run only",
            todo="run without provisioning",
        )
    if not (shared := deployment(program)).outputs:
        raise MpccError("nothing of this program is computed in MPC: there is nothing to provision")
    return sessions.provision(shared, program.provider_stream(), state, on_stage=progress or (lambda stage: None))


def run_session(
    program: Program,
    inputs: Iterable[Mapping[str, object]],
    state: Path | None,
    *,
    site: Site | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
    on_result: Callable[[Result], None] | None = None,
    limits: Limits | None = None,
) -> tuple[list[Result], Served | None]:
    """See `Program.run_many`; with `site` only the client runs here. None for the session if nothing is secret."""
    shared = deployment(program)
    if not shared.outputs:
        return [program.run(x, truncate=truncate) for x in inputs], None
    prepared: list[tuple[dict[str, torch.Tensor], tuple[str, ...]]] = []

    def requests() -> Iterator[Int64]:
        for given in inputs:
            values, stream, notes = program.prepared(given, truncate)
            prepared.append((values, notes))
            yield stream

    def answered(number: int, answer: Mapping[str, Int64]) -> None:
        if on_result is not None:
            on_result(program.result(prepared[number][0], answer, None, prepared[number][1]))

    weights = program.provider_stream() if site is None and program.bundle.provider is not None else None
    if state is not None and weights is not None:
        check_weights(state, weights)
    served = sessions.serve(
        shared,
        requests(),
        weights=None if state is not None else weights,
        state=state,
        site=site,
        limits=limits,
        on_stage=progress or (lambda stage: None),
        on_answer=answered,
    )
    first = replace(
        served.measured[0],
        provisioning_bytes=served.weights_bytes,
        provisioning_seconds=served.weights_seconds,
        compile_seconds=served.compile_seconds,
    )
    measured = (first, *served.measured[1:])
    results = [
        program.result(values, answer, own, notes)
        for (values, notes), answer, own in zip(prepared, served.answers, measured, strict=True)
    ]
    return results, served


def check_weights(state: Path, weights: Int64) -> None:
    """EngineError if the stored shares are of other weights than the provider's present ones."""
    found = states.read_state(state, "provider")
    if found.weights and found.weights != states.digest(weights.astype("<i8").tobytes()):
        raise EngineError(
            "the stored shares are of other weights than the program's",
            where=str(state),
            todo="provision again: mpcc provision",
        )
