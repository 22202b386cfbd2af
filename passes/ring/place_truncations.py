"""Turn every remaining request for a scale into what reaches it.

    rescale to fewer fractional bits   -> trunc(bits, variant)
    rescale to more                    -> mul_const(2^n), free
    rescale to the same (a narrower bound only) -> mul_const(1), free

After this pass no rescale is left and every truncation is explicit. `width` is the bit length the truncation must hold.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.types import attributes
from mpcc.passes.ring.narrow_bounds import narrow_bounds

SAFE_WIDTH = 63  # measured: |x| < 2^62 is truncated without a failure probability, at the same price as narrower widths


def place_truncations(graph: RingGraph, *, variant: str = "safe") -> RingGraph:
    """Place truncations of one variant ("safe" | "nearest") wherever a scale has to shrink."""
    nodes: dict[str, RingNode] = {}
    for node in graph:
        if node.body is not None:
            node = replace(node, body=place_truncations(node.body, variant=variant))
        nodes[node.name] = _placed(node, nodes, variant) if node.op == "rescale" else node
    return narrow_bounds(RingGraph(tuple(nodes.values()), graph.outputs, graph.ring_bits))


def _placed(node: RingNode, nodes: dict[str, RingNode], variant: str) -> RingNode:
    source = nodes[node.inputs[0]]
    surplus = source.type.frac_bits - node.type.frac_bits
    if surplus <= 0:
        type = replace(node.type, bound=min(node.type.bound, source.type.bound))
        return replace(node, op="mul_const", attrs=attributes(value=2**-surplus, shift=-surplus), type=type)
    width = min(source.type.int_bits + 2, SAFE_WIDTH) if variant == "nearest" else SAFE_WIDTH
    attrs = attributes(bits=surplus, variant=variant, width=max(width, surplus + 1))
    return replace(node, op="trunc", attrs=attrs)
