"""A single inference on MP-SPDZ: a session with one request."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mpcc.runtime.engine import Measured
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.session import serve


@dataclass(frozen=True)
class Job:
    """A program with everybody's streams of ring elements; `outputs` names what the client receives, with sizes."""

    source: str
    protocol: str
    public_stream: np.ndarray
    provider_stream: np.ndarray
    client_stream: np.ndarray
    outputs: tuple[tuple[str, int], ...]

    @property
    def program(self):
        sizes = self.provider_stream.size, self.client_stream.size
        return Emitted(self.source, self.protocol, "layout", self.public_stream, *sizes, self.outputs)


@dataclass(frozen=True)
class JobResult:
    outputs: dict[str, np.ndarray]
    measured: Measured


def run_job(job, **options):
    """The outputs, and what they cost with sharing the weights."""
    served = serve(job.program, [job.client_stream], weights=job.provider_stream, **options)
    (outputs,), (measured,) = served.answers, served.measured
    once = {"provisioning_bytes": served.weights_bytes, "provisioning_seconds": served.weights_seconds}
    return JobResult(outputs, replace(measured, **once, compile_seconds=served.compile_seconds))
