"""How large the sums of squares of norms get: the bounds in the ring IR, powers of two that everybody may see."""

from __future__ import annotations

from collections.abc import Iterator

from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.passes.graph.roll_layers import roll_layers

NORMS = frozenset({"layer_norm", "rms_norm"})


def largest_sums(mpc: Graph, ring: RingGraph) -> dict[str, float]:
    """Node of a norm -> bound of every row's sum of squares, where the ring program made of the graph tells it."""
    sums = {n.origin.node: n.type.bound for n, _ in ring.walk() if n.op == "dot" and n.origin.graph_op in NORMS}
    return {member: sums[name] for name, member in _norms(roll_layers(mpc)) if name in sums}


def _norms(graph: Graph) -> Iterator[tuple[str, str]]:
    """(name in the rolled graph, name of each node that it stands for)."""
    for node in graph:
        if node.op in NORMS:
            yield from ((node.name, member) for member in (node.members or (node.name,)))
        if node.body is not None:
            yield from _norms(node.body)
