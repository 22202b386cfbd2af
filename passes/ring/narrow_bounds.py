"""Take the bound that the rule of an operation gives wherever a pass made its operands tighter.

    Given                                        Result
    a = trunc(x) |x|<=0.5                        a = trunc(x) |x|<=0.5
    y = mul_const(a) {value=2} |x|<=1.00001      y = mul_const(a) {value=2} |x|<=1

Bounds only ever shrink; loop bodies are left to the pass that made them.
"""

from __future__ import annotations

from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.rules import PRIMITIVES


def narrow_bounds(graph: RingGraph, known: RingGraph | None = None) -> RingGraph:
    """`graph` with every bound at most what its operands' bounds imply.

    `known` is the graph that a pass made `graph` from, and where this holds already: nodes that stand in both are
    looked at only where an operand has changed.
    """
    before = known.by_name if known is not None else {}
    nodes: dict[str, RingNode] = {}
    changed: set[str] = set()
    for node in graph:
        old = before.get(node.name)
        if old is not node or not changed.isdisjoint(node.inputs):
            node = _narrowed(node, nodes)
            if old is None or old.type != node.type or node.body is not None:
                changed.add(node.name)
        nodes[node.name] = node
    return graph.with_nodes(nodes.values())


def _narrowed(node: RingNode, nodes: dict[str, RingNode]) -> RingNode:
    row = PRIMITIVES[node.op]
    if row.kind == "leaf" or node.body is not None:  # their type says more than their rule
        return node
    implied = row.rule(node, [nodes[name] for name in node.inputs]).bound
    return node.with_type(node.type.within(implied)) if implied < node.type.bound else node
