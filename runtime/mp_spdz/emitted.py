"""What MP-SPDZ runs of a program: the emitted source, and how much each owner feeds to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mpcc.backends.mp_spdz.dialects import check_source
from mpcc.backends.mp_spdz.emitter import emit_together
from mpcc.backends.mp_spdz.weights import layout_together
from mpcc.compiler.bundle.agreement import placed_weights
from mpcc.compiler.bundle.manifest import end_of
from mpcc.compiler.bundle.streams import in_order, stream
from mpcc.compiler.errors import BundleError
from mpcc.runtime.deployment import Deployment
from mpcc.runtime.engine import Arrays, Int64, Request
from mpcc.runtime.parties.agreement import Parts
from mpcc.runtime.program_digest import program_parts

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import Placed


Outputs = tuple[tuple[str, int], ...]  # name and ring elements


@dataclass(frozen=True)
class Emitted:
    """A program for MP-SPDZ.

    `layout` is a digest of where which weight stands, `private_elements` the number of ring elements of the provider,
    `client_elements` that of one request; `outputs` names what the client receives, with the ring elements of each.
    `parts` are what all roles have to have in common (`program_parts`). `later` are elements and outputs of the
    session's other programs; where there are any, a request begins with the number of its program, from 1.
    """

    source: str
    protocol: str
    layout: str
    public_stream: Int64
    private_elements: int
    client_elements: int
    outputs: Outputs
    parts: Parts = field(default_factory=dict)
    later: tuple[tuple[int, Outputs], ...] = ()

    @property
    def steps(self) -> tuple[tuple[int, Outputs], ...]:
        """Ring elements of a request and outputs of every program."""
        return ((self.client_elements, self.outputs), *self.later)


def emitted(program: Deployment) -> Emitted:
    """What is run of a program: text that is made here of the ring program, whatever text came with it.

    Raises:
        EngineError: the source was made for another protocol than the manifest says.
        BundleError: the source is not what the ring program says.
    """
    for step in program.steps:
        check_source(step.source, step.protocol)
        if source_of(replace(step, later=())) != step.source:
            raise BundleError(
                "the source is not the one that its ring.ir says: it was edited, or made by another version of mpcc",
                todo="do not run it; ask for the program again, or compile it again",
            )
    private, public = placed_in_session(program)
    return Emitted(
        source_of(program) if program.later else program.source,
        program.protocol,
        layout_digest(private),
        stream(public, {name: array for step in program.steps for name, array in step.public.items()}),
        end_of(private),
        *_step(program),
        program_parts(program),
        tuple(_step(step) for step in program.later),
    )


def source_of(program: Deployment) -> str:
    """The text that every role makes of a program, or of the programs of a session together."""
    rings = [step.ring for step in program.steps]
    return emit_together(rings, protocol=program.protocol, truncation=program.manifest.truncation).text


def _step(program: Deployment) -> tuple[int, Outputs]:
    """Ring elements of a request to a program, and its outputs."""
    outputs = (o for o in program.manifest.outputs if not o.clear)
    given = sum(n.type.elements for n in program.ring if n.op == "input")
    return given, tuple((o.name, int(np.prod(o.shape, dtype=np.int64))) for o in outputs)


def placed_in_session(program: Deployment) -> tuple[tuple[Placed, ...], tuple[Placed, ...]]:
    """Where private and public weights of all programs of a session stand."""
    layouts = layout_together([step.ring for step in program.steps])
    private = {p for layout in layouts for p in placed_weights(layout.private)}
    public = {p for layout in layouts for p in placed_weights(layout.public)}
    return tuple(sorted(private, key=_position)), tuple(sorted(public, key=_position))


def _position(placed: Placed) -> int:
    return placed.position


def layout_digest(placed: Iterable[Placed]) -> str:
    """A digest of which weight stands where at which scale."""
    rows = [[p.tensor, p.frac_bits, p.position, p.elements] for p in placed]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def provider_stream(program: Deployment, weights: Arrays) -> Int64:
    """The provider's weights as ring elements, in the program's order."""
    return stream(placed_in_session(program)[0], weights)


def client_stream(program: Deployment, request: Request) -> Int64:
    """What the client feeds to its party for one request."""
    values = in_order(program.steps[request.step].manifest.client_order, request.shared)
    return np.concatenate([np.array([request.step + 1], np.int64), values]) if program.later else values
