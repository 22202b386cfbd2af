"""A program as every role of it knows it: what an engine is given besides the owners' own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.fixed import decode
from mpcc.compiler.ring.states import states_of
from mpcc.runtime.engine import Answer, Array, Arrays, Int64

if TYPE_CHECKING:
    from mpcc.compiler.bundle.contents import Bundle
    from mpcc.compiler.bundle.manifest import Manifest
    from mpcc.compiler.graph.ir import Graph
    from mpcc.compiler.ring.ir import RingGraph


@dataclass(frozen=True)
class Deployment:
    """The shared part of a program; each engine takes from it what it runs.

    `public` are the public weights inside MPC by tensor; `mpc` is the graph that `ring` approximates. `later` are the
    other programs of its sessions, which share weights and states with it: a request says which it is for.
    """

    manifest: Manifest
    source: str
    ring: RingGraph
    public: Arrays
    mpc: Graph
    later: tuple[Deployment, ...] = ()

    @property
    def steps(self) -> tuple[Deployment, ...]:
        """All programs of a session, in the order in which requests count them."""
        return (self, *self.later)

    @property
    def protocol(self) -> str:
        """The protocol it was compiled for."""
        return self.manifest.protocol


def deployment_of(bundle: Bundle) -> Deployment:
    """What every role knows of a bundle."""
    return Deployment(bundle.manifest, bundle.source, bundle.ring, bundle.public, bundle.mpc)


def session_of(bundles: Sequence[Bundle]) -> Deployment:
    """Programs that share a session, the first of them with the others.

    Raises:
        BundleError: they were compiled for different protocols, or differ in what a session has once.
    """
    first, *later = (deployment_of(bundle) for bundle in bundles)
    for other in later:
        same = (first.manifest.protocol, first.manifest.truncation, first.manifest.mpcc)
        if (other.manifest.protocol, other.manifest.truncation, other.manifest.mpcc) != same:
            raise BundleError("the programs were not compiled for one session", todo="compile them together")
        if any(name in first.public and not _equal(first.public[name], a) for name, a in other.public.items()):
            raise BundleError("the programs differ in a public weight", todo="compile them together")
    try:
        states_of(*(step.ring for step in (first, *later)))
    except InternalError as error:  # of our own programs it would be a bug
        raise BundleError(f"the programs are not of one session: {error}", todo="compile them together") from None
    return replace(first, later=tuple(later))


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def reals(program: Deployment, received: Mapping[str, Int64]) -> Answer:
    """What was opened to the client, as the numbers that it stands for, in the shapes of the outputs."""
    specs = [o for o in program.manifest.outputs if not o.clear]
    return {o.name: decode(received[o.name], o.frac_bits).reshape(o.shape) for o in specs}
