"""mpcc on the same subject: compiled by its Python API, run by the same parties."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.parties import Measurement, measure
from benchmarks.subjects import Subject
from mpcc.backends.emulator import run as emulate
from mpcc.compiler.bundle.streams import encoded
from mpcc.compiler.cost import estimate
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pack import pack
from mpcc.compiler.driver.pipeline import Compiled, compile_model
from mpcc.compiler.driver.savings import measured_savings
from mpcc.compiler.fixed import decode
from mpcc.compiler.frontend.capture import Captured, capture
from mpcc.program import Program
from mpcc.runtime.mp_spdz.build import SERVE

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Built:
    """A compiled program, and what compiling it by mpcc took."""

    subject: Subject
    program: Program
    compiled: Compiled
    seconds: float

    @property
    def failure_bits(self) -> float | None:
        """-log2 of the probability that any truncation of an inference fails; None where none can."""
        choice = self.compiled.truncations
        return None if choice is None or not choice.failure_probability else -math.log2(choice.failure_probability)


@dataclass(frozen=True)
class Emulated:
    """All test inputs in clear: errors, labels, and values outside what the program was made for."""

    max_error: float
    mean_error: float
    equal_labels: int
    inputs: int
    overflows: int
    widest: float  # largest part of its bound that any value used
    beyond: int  # places at which a value left its bound on any input


def captured(subject: Subject) -> Captured:
    """The model as a graph."""
    if subject.sequence_length is not None:
        return capture(subject.model, sequence_length=subject.sequence_length)
    return capture(subject.model, subject.inputs[0])


def build(subject: Subject, profile: str) -> Built:
    """Compile in a profile."""
    begin = time.monotonic()
    model = captured(subject)
    compiled = compile_model(model, subject.partition, subject.calibration, Options(profile=profile))
    return Built(subject, Program(pack(model, compiled)), compiled, time.monotonic() - begin)


def run_secure(built: Built, index: int = 0) -> tuple[Measurement, torch.Tensor]:
    """One test input on three real parties: what it cost, and the output."""
    program = built.program
    request = np.append(program.client_stream(built.subject.inputs[index]), 0)  # and no other one
    streams = (request, program.provider_stream(), np.zeros(0, np.int64))
    public = program.public_stream()
    parts = tuple(np.concatenate([public, own]).astype("<i8").tobytes() for own in streams)
    measured = measure(program.source, lambda folder: None, lambda folder: parts, trunc_error=True, mode=SERVE)
    answer = np.frombuffer(measured.output, "<i8").astype(np.int64)[:-1]  # a zero ends it
    return measured, _real(built, answer, index)


def run_emulated(built: Built) -> Emulated:
    """All test inputs on the emulator, which computes the same integers in clear."""
    subject, bundle = built.subject, built.program.bundle
    shared, weights = built.program.deployment(), built.program.provider_weights()
    params = encoded(bundle.manifest.private_weights, weights) | encoded(bundle.manifest.public_weights, shared.public)
    errors, equal, overflows, widest, beyond = [], 0, 0, 0.0, set()
    for index, inputs in enumerate(subject.inputs):
        request = built.program.prepared(inputs).request
        result = emulate(bundle.ring, request.shared, params, seed=index, check=False)
        found = _real(built, next(iter(result.outputs.values())), index)
        errors.append((found - subject.expected[index]).abs())
        equal += int(torch.equal(found.argmax(-1), subject.expected[index].argmax(-1)))
        overflows += len(result.overflows)
        widest = max(widest, *(use.ratio for use in result.ranges))
        beyond |= {(use.layer, use.name) for use in result.ranges if use.ratio > 1}
    stacked = torch.stack(errors)
    return Emulated(
        float(stacked.max()), float(stacked.mean()), equal, len(subject.inputs), overflows, widest, len(beyond)
    )


def _real(built: Built, integers: np.typing.NDArray[np.int64], index: int) -> torch.Tensor:
    """The only output as reals, in the shape of its reference."""
    spec = built.program.bundle.manifest.outputs[0]
    return torch.from_numpy(decode(integers, spec.frac_bits)).reshape(built.subject.expected[index].shape)


# ** with a pass switched off **
@dataclass(frozen=True)
class Estimated:
    """What the cost model says, for ablations: nothing was run."""

    switched_off: str
    bytes: int
    rounds: int
    source: int
    problem: str = ""


def ablate(subject: Subject, profile: str) -> list[Estimated]:
    """The estimated cost with all passes, and with each one switched off in turn."""
    model, options = captured(subject), Options(profile=profile)
    compiled = compile_model(model, subject.partition, subject.calibration, options)
    cost, source = estimate(compiled.ring, options.protocol), len(compiled.source.text)
    found = measured_savings(model, subject.partition, subject.calibration, compiled)
    return [
        Estimated("", cost.bytes_online, cost.rounds, source),
        *(
            Estimated(
                s.without, cost.bytes_online + s.bytes, cost.rounds + s.rounds, source + s.source_bytes, s.problem
            )
            for s in found
        ),
    ]
