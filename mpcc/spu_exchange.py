"""Programs on the spu engine: weights shared once a session, then any number of inferences.

SPU computes from the float graph of what is inside MPC, not from the ring program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mpcc.backends.spu.norm_sums import largest_sums
from mpcc.backends.spu.program import StableHlo
from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.clear import arrays_of
from mpcc.compiler.bundle.contents import Arrays, Bundle
from mpcc.runtime.engine import Measured
from mpcc.runtime.spu import session as spu_session
from mpcc.runtime.spu.folders import Array
from mpcc.runtime.spu.protocols import DEFAULT_PROTOCOL, NAME
from mpcc.runtime.spu.session import SpuServed

if TYPE_CHECKING:
    from mpcc.program import Program
    from mpcc.result import Result
    from mpcc.runtime.mp_spdz.session import Site
    from mpcc.runtime.parties.processes import Limits

Tensors = Mapping[str, torch.Tensor]


def program_of(bundle: Bundle) -> StableHlo | None:
    """What SPU runs; None where the client computes all outputs alone.

    Raises:
        UnsupportedError: see `emit_stablehlo`.
    """
    return emit_stablehlo(bundle.mpc, largest_sums(bundle.mpc, bundle.ring)) if bundle.mpc.outputs else None


def run_spu_session(
    program: Program,
    inputs: Iterable[Mapping[str, object]],
    *,
    code: StableHlo | None = None,
    protocol: str = DEFAULT_PROTOCOL,
    site: Site | None = None,
    truncate: bool = False,
    progress: Callable[[str], None] | None = None,
    limits: Limits | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> tuple[list[Result], SpuServed | None]:
    """Run on many inputs; with `site` only the client runs here. None for the session if nothing is secret.

    `code` is what SPU runs, made from the bundle unless given. The first result's measurement has the provisioning in
    it: sharing the weights, and compiling.

    Raises:
        BundleError: a role's folder is not here.
        InputError, UnsupportedError, EngineError: see `Program.run`, `emit_stablehlo` and `spu_session.serve`.
    """
    code = code or program_of(program.bundle)
    if code is None:  # nothing secret is left: the client computes it all
        alone = (program.prepared(x, truncate) for x in inputs)
        return [_result(program, values, {}, None, notes) for values, _, notes in alone], None
    prepared: list[tuple[Tensors, tuple[str, ...]]] = []
    needed = [i.tensor for i in code.inputs if i.owner == "client"]

    def requests() -> Iterator[dict[str, Array]]:
        for given in inputs:
            values, _, notes = program.prepared(given, truncate)
            prepared.append((values, notes))
            yield _floats(arrays_of({name: values[name] for name in needed}))

    def answered(number: int, answer: Mapping[str, Array]) -> None:
        if on_result is not None:
            values, notes = prepared[number]
            on_result(_result(program, values, answer, None, notes))

    weights = None if site is not None else _floats(program._provider())
    served = spu_session.serve(
        code,
        requests(),
        public=_floats(program.bundle.public),
        weights=weights,
        protocol=protocol,
        site=site,
        limits=limits,
        on_answer=answered,
        on_stage=progress or (lambda stage: None),
    )
    first = replace(
        served.measured[0],
        provisioning_bytes=served.weights_bytes,
        provisioning_seconds=served.weights_seconds,
        compile_seconds=served.compile_seconds,
    )
    results = [
        _result(program, values, answer, measured, notes)
        for (values, notes), answer, measured in zip(
            prepared, served.answers, (first, *served.measured[1:]), strict=True
        )
    ]
    return results, served


def _result(
    program: Program, values: Tensors, answer: Mapping[str, Array], measured: Measured | None, notes: tuple[str, ...]
) -> Result:
    """All outputs by name: what the client computed in clear, and what it received."""
    from mpcc.result import Result

    bundle = program.bundle
    client = {} if bundle.client is None else dict(bundle.client.graph.outputs)
    outputs = {
        o.name: values[client[o.name]] if o.clear else torch.from_numpy(answer[o.name]) for o in bundle.manifest.outputs
    }
    return Result(outputs, NAME, 0.0 if measured is None else measured.seconds, measured, program.cost(), notes)


def _floats(arrays: Arrays) -> dict[str, Array]:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}
