"""A program as every role of it knows it: what an engine is given besides the owners' own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpcc.compiler.fixed import decode
from mpcc.runtime.engine import Answer, Arrays, Int64

if TYPE_CHECKING:
    from mpcc.compiler.bundle.contents import Bundle
    from mpcc.compiler.bundle.manifest import Manifest
    from mpcc.compiler.graph.ir import Graph
    from mpcc.compiler.ring.ir import RingGraph


@dataclass(frozen=True)
class Deployment:
    """The shared part of a program; each engine takes from it what it runs.

    `public` are the public weights inside MPC by tensor; `mpc` is the graph that `ring` approximates.
    """

    manifest: Manifest
    source: str
    ring: RingGraph
    public: Arrays
    mpc: Graph

    @property
    def protocol(self) -> str:
        """The protocol it was compiled for."""
        return self.manifest.protocol


def deployment_of(bundle: Bundle) -> Deployment:
    """What every role knows of a bundle."""
    return Deployment(bundle.manifest, bundle.source, bundle.ring, bundle.public, bundle.mpc)


def reals(program: Deployment, received: Mapping[str, Int64]) -> Answer:
    """What was opened to the client, as the numbers that it stands for, in the shapes of the outputs."""
    specs = [o for o in program.manifest.outputs if not o.clear]
    return {o.name: decode(received[o.name], o.frac_bits).reshape(o.shape) for o in specs}
