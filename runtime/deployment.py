"""A program as every role of it knows it: what an engine is given besides the owners' own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpcc.compiler.fixed import decode
from mpcc.runtime.engine import Answer, Array, Arrays, Int64

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import Manifest
    from mpcc.compiler.bundle.read import Bundle
    from mpcc.compiler.graph.ir import Graph
    from mpcc.compiler.ring.ir import RingGraph


@dataclass(frozen=True)
class Deployment:
    """The shared part of a program; each engine takes from it what it runs.

    `public` are the public weights inside MPC by tensor. `mpc`, the graph inside MPC, is None for the roles that do not
    have it. `path` is prog.mpc where the program was read from files.
    """

    manifest: Manifest
    source: str
    ring: RingGraph
    public: Arrays
    mpc: Graph | None = None
    path: Path | None = None

    @property
    def protocol(self) -> str:
        """The protocol it was compiled for."""
        return self.manifest.protocol


def deployment_of(bundle: Bundle, path: Path | None = None) -> Deployment:
    """What every role knows of a bundle, which was read from prog.mpc at `path` or never was a file."""
    return Deployment(bundle.manifest, bundle.source, bundle.ring, as_arrays(bundle.public), bundle.mpc, path)


def as_arrays(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """Weights as arrays; they are tensors of PyTorch where the program was compiled in this process."""
    return {name: np.asarray(t.detach() if hasattr(t, "detach") else t) for name, t in tensors.items()}


def reals(program: Deployment, received: Mapping[str, Int64]) -> Answer:
    """What was opened to the client, as the numbers that it stands for, in the shapes of the outputs."""
    specs = [o for o in program.manifest.outputs if not o.clear]
    return {o.name: decode(received[o.name], o.frac_bits).reshape(o.shape) for o in specs}
