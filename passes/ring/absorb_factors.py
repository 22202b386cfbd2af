"""Let the owner of a weight supply it at the scale at which it is used.

Given                                    Result
    b = param(bias) q16                      b' = param(bias) q32
    c = mul_const(b) {value=2^16, shift=16}

Only where nothing else reads the weight. The bias then also keeps the bits that lifting would have filled with zeros.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import RingGraph, RingNode


def absorb_factors(graph: RingGraph) -> RingGraph:
    """Fold lifts of single-reader params into their encoding; repeat bodies included."""
    readers: dict[str, int] = {}
    for node in graph:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    nodes: dict[str, RingNode] = {}
    for node in graph:
        if node.body is not None:
            node = node.with_body(absorb_factors(node.body))
        lifted = _lifted_param(node, nodes, readers)
        if lifted is None:
            nodes[node.name] = node
        else:
            nodes[node.name] = lifted
            del nodes[node.inputs[0]]
    return graph.with_nodes(nodes.values())


def _lifted_param(node: RingNode, nodes: dict[str, RingNode], readers: dict[str, int]) -> RingNode | None:
    if node.op != "mul_const" or readers.get(node.inputs[0]) != 1:
        return None
    param, shift = nodes[node.inputs[0]], node.int_attr("shift")
    if param.op != "param" or shift <= 0 or node.int_attr("value") != 2**shift:
        return None
    return replace(param, name=node.name, type=param.type.at_scale(param.type.frac_bits + shift))
