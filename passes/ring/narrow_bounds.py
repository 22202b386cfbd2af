"""Take the bound that the rule of an operation gives wherever a pass made its operands tighter.

    Given                                        Result
    a = trunc(x) |x|<=0.5                        a = trunc(x) |x|<=0.5
    y = mul_const(a) {value=2} |x|<=1.00001      y = mul_const(a) {value=2} |x|<=1

Bounds only ever shrink; loop bodies are left to the pass that made them.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import LEAVES, RING_OPS, RingGraph, RingNode
from mpcc.compiler.ring.verify import RULES, Scope

_BY_OPERANDS = frozenset(RING_OPS) - LEAVES - {"repeat"}  # operations whose rule looks at nothing but the operands


def narrow_bounds(graph: RingGraph) -> RingGraph:
    """`graph` with every bound at most what its operands' bounds imply."""
    scope = Scope(graph.ring_bits, final=False)
    nodes: dict[str, RingNode] = {}
    for node in graph:
        if node.op in _BY_OPERANDS:
            implied = RULES[node.op][1](node, [nodes[name] for name in node.inputs], scope).bound
            node = replace(node, type=replace(node.type, bound=min(node.type.bound, implied)))
        nodes[node.name] = node
    return RingGraph(tuple(nodes.values()), graph.outputs, graph.ring_bits)
