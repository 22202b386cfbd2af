"""Turn every remaining request for a scale into what reaches it.

    rescale to fewer fractional bits   -> trunc(bits, variant)
    rescale to more                    -> mul_const(2^n), free
    rescale to the same (a narrower bound only) -> mul_const(1), free

After this pass no rescale is left and every truncation is explicit.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.result_types import truncation_width
from mpcc.compiler.types import attributes
from mpcc.passes.ring.narrow_bounds import narrow_bounds


def place_truncations(graph: RingGraph, *, variant: str = "safe") -> RingGraph:
    """Place truncations of one variant ("safe" | "nearest") wherever a scale has to shrink."""
    nodes: dict[str, RingNode] = {}
    for node in graph:
        if node.body is not None:
            node = node.with_body(place_truncations(node.body, variant=variant))
        nodes[node.name] = _placed(node, nodes, variant) if node.op == "rescale" else node
    return narrow_bounds(graph.with_nodes(nodes.values()), graph)


def _placed(node: RingNode, nodes: dict[str, RingNode], variant: str) -> RingNode:
    source = nodes[node.inputs[0]]
    surplus = source.type.frac_bits - node.type.frac_bits
    if surplus <= 0:
        type = node.type.within(source.type.bound)
        return replace(node, op="mul_const", attrs=attributes(value=2**-surplus, shift=-surplus), type=type)
    width = truncation_width(variant, surplus, source.type)
    return replace(node, op="trunc", attrs=attributes(bits=surplus, variant=variant, width=width))
