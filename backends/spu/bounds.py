"""What the SPU forms may know of magnitudes: the bounds in the ring IR, powers of two that everybody may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.passes.graph.roll_layers import roll_layers

NORMS = frozenset({"layer_norm", "rms_norm"})
SUM_MAX = "sum_max"  # statistic of a norm: no row's sum of squares is larger


def with_bounds(mpc: Graph, ring: RingGraph) -> Graph:
    """The graph with `sum_max` at every norm whose sum of squares is found in the ring program made of it."""
    sums = {n.origin.node: n.type.bound for n, _ in ring.walk() if n.op == "dot" and n.origin.graph_op in NORMS}
    found = {member: sums[name] for name, member in _norms(roll_layers(mpc)) if name in sums}
    return mpc.with_nodes([replace(n, stats=((SUM_MAX, found[n.name]),)) if n.name in found else n for n in mpc])


def _norms(graph: Graph) -> Iterator[tuple[str, str]]:
    """(name in the rolled graph, name of each node that it stands for)."""
    for node in graph:
        if node.op in NORMS:
            yield from ((node.name, member) for member in (node.members or (node.name,)))
        if node.body is not None:
            yield from _norms(node.body)
