"""A bundle and the client's values as a job of the spu engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from mpcc.backends.spu import emit_stablehlo
from mpcc.backends.spu.bounds import with_bounds
from mpcc.compiler.bundle import Bundle
from mpcc.compiler.errors import BundleError
from mpcc.runtime.engine import Measured
from mpcc.runtime.spu import DEFAULT_PROTOCOL, Array, SpuJob, run_spu

Tensors = Mapping[str, torch.Tensor]


def run_bundle(
    bundle: Bundle, values: Tensors, *, protocol: str = DEFAULT_PROTOCOL,
    progress: Callable[[str], None] = lambda stage: None,
) -> tuple[dict[str, torch.Tensor], Measured | None]:  # fmt: skip
    """Run the MPC region of a program; `values` are those of the client's graph, by node.

    Returns all outputs by name, also those that the client computes alone, and what they cost (None where nothing
    secret was left to compute).

    Raises:
        BundleError: the bundle was made by an older mpcc, or a role's folder is not here.
        UnsupportedError, EngineError: see `emit_stablehlo` and `run_spu`.
    """
    job = job_of(bundle, values)
    result = None if job is None else run_spu(job, protocol=protocol, on_stage=progress)
    client = {} if bundle.client is None else dict(bundle.client.graph.outputs)
    outputs = {o.name: values[client[o.name]] for o in bundle.manifest.outputs if o.clear}
    if result is None:
        return outputs, None
    received = {name: torch.from_numpy(array) for name, array in result.outputs.items()}
    return {o.name: (outputs | received)[o.name] for o in bundle.manifest.outputs}, result.measured


def job_of(bundle: Bundle, values: Tensors) -> SpuJob | None:
    """The program and everybody's values; None where the client has computed all outputs alone."""
    if bundle.mpc is None:
        raise BundleError("the bundle has no mpc.ir: it was made by an older mpcc", todo="compile again")
    if bundle.provider is None:
        raise BundleError("the bundle has no provider/ folder here", todo="only the provider has the private weights")
    if not bundle.mpc.outputs:
        return None
    program = emit_stablehlo(with_bounds(bundle.mpc, bundle.ring))
    shared = {i.tensor: values[i.tensor] for i in program.inputs if i.owner == "client"}
    return SpuJob(program, _arrays(shared), _arrays(bundle.provider), _arrays(bundle.public))


def _arrays(tensors: Tensors) -> dict[str, Array]:
    return {name: tensor.detach().to(torch.float32).numpy() for name, tensor in tensors.items()}
