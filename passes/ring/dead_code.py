"""Drop ring values that nothing reads; inputs stay, since they are part of the program's signature."""

from __future__ import annotations

from mpcc.compiler.ring.ir import RingGraph


def ring_dead_code(graph: RingGraph) -> RingGraph:
    """Remove unread nodes, loop bodies included."""
    live = {name for _, name in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    kept = [node for node in graph.nodes if node.name in live or node.op == "input"]
    return graph.with_nodes(n if n.body is None else n.with_body(ring_dead_code(n.body)) for n in kept)
