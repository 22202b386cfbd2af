"""What MP-SPDZ runs of a program: the emitted source, and how much each owner feeds to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mpcc.backends.mp_spdz.dialects import check_source
from mpcc.backends.mp_spdz.emitter import emit
from mpcc.compiler.bundle.streams import in_order, stream
from mpcc.compiler.errors import BundleError
from mpcc.runtime.deployment import Deployment
from mpcc.runtime.engine import Arrays, Int64, Request
from mpcc.runtime.parties.agreement import Parts
from mpcc.runtime.program_digest import program_parts

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import Placed


@dataclass(frozen=True)
class Emitted:
    """A program for MP-SPDZ.

    `layout` is a digest of where which weight stands, `private_elements` the number of ring elements of the provider,
    `client_elements` that of one request; `outputs` names what the client receives, with the ring elements of each.
    `parts` are what all roles have to have in common (`program_parts`).
    """

    source: str
    protocol: str
    layout: str
    public_stream: Int64
    private_elements: int
    client_elements: int
    outputs: tuple[tuple[str, int], ...]
    parts: Parts = field(default_factory=dict)


def emitted(program: Deployment) -> Emitted:
    """What is run of a program: text that is made here of the ring program, whatever text came with it.

    Raises:
        EngineError: the source was made for another protocol than the manifest says.
        BundleError: the source is not what the ring program says.
    """
    manifest = program.manifest
    check_source(program.source, program.protocol)
    source = emit(program.ring, protocol=program.protocol, truncation=manifest.truncation).text
    if source != program.source:
        raise BundleError(
            "the source is not the one that its ring.ir says: it was edited, or made by another version of mpcc",
            todo="do not run it; ask for the program again, or compile it again",
        )
    return Emitted(
        source,
        program.protocol,
        layout_digest(manifest.private_weights),
        stream(manifest.public_weights, program.public),
        manifest.private_elements,
        sum(n.type.elements for n in program.ring if n.op == "input"),
        tuple((o.name, int(np.prod(o.shape, dtype=np.int64))) for o in manifest.outputs if not o.clear),
        program_parts(program),
    )


def layout_digest(placed: Iterable[Placed]) -> str:
    """A digest of which weight stands where at which scale."""
    rows = [[p.tensor, p.frac_bits, p.position, p.elements] for p in placed]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def provider_stream(program: Deployment, weights: Arrays) -> Int64:
    """The provider's weights as ring elements, in the program's order."""
    return stream(program.manifest.private_weights, weights)


def client_stream(program: Deployment, request: Request) -> Int64:
    """What the client feeds to its party for one request."""
    return in_order(program.manifest.client_order, request.shared)
