"""Drop ring values that nothing reads; inputs stay, since they are part of the program's signature."""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import RingGraph


def ring_dead_code(graph: RingGraph) -> RingGraph:
    """Remove unread nodes, loop bodies included."""
    live = {name for _, name in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    kept = [node for node in graph.nodes if node.name in live or node.op == "input"]
    kept = [replace(n, body=ring_dead_code(n.body)) if n.body is not None else n for n in kept]
    return RingGraph(tuple(kept), graph.outputs, graph.ring_bits)
