"""Leave out truncations whose bits a later truncation can take along.

Given                                     Result
    q = rescale(a) {frac_bits=16}             s = matmul(a, k)
    s = matmul(q, k)                          r = rescale(s) {frac_bits=16}
    r = rescale(s) {frac_bits=16}
Only where every path from the value ends at another truncation before anything else needs its scale, and where all
wider integers in between still fit the ring. A safe truncation costs the same for any number of bits, so each one left
out is a gain; a local one fails more often the larger its argument is, so `only` tells which ones take part.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from mpcc.compiler.ring.ir import HEADROOM_BITS, RingGraph, RingNode
from mpcc.compiler.types import attributes
from mpcc.passes.ring.narrow_bounds import narrow_bounds

_LINEAR = frozenset({"add", "sub", "sum", "layout", "mul_const"})
_PRODUCTS = frozenset({"mul", "dot", "matmul", "block_matmul"})


def defer_rescales(graph: RingGraph, only: Set[str] | None = None) -> RingGraph:
    """Leave out requests for a smaller scale, the largest values first; repeat bodies included.

    `only`: the requests (by node name) that may be left out or take others along; None for all.
    """
    nodes = tuple(
        replace(node, body=defer_rescales(node.body, only)) if node.body is not None else node for node in graph
    )
    graph = RingGraph(nodes, graph.outputs, graph.ring_bits)
    wanted = [n for n in graph if _is_truncation(n, graph) and (only is None or n.name in only)]
    chosen: frozenset[str] = frozenset()
    result = graph
    for node in sorted(wanted, key=lambda n: -n.type.elements):
        attempt = _without(graph, chosen | {node.name}, only)
        if attempt is not None:
            chosen, result = chosen | {node.name}, attempt
    return narrow_bounds(result)


def _is_truncation(node: RingNode, graph: RingGraph) -> bool:
    return node.op == "rescale" and graph[node.inputs[0]].type.frac_bits > node.type.frac_bits


def _without(graph: RingGraph, names: frozenset[str], only: Set[str] | None) -> RingGraph | None:
    """The graph without these requests, or None where that cannot be."""
    nodes: dict[str, RingNode] = {}
    for node in graph:
        new = _moved(node, graph, nodes, names, only)
        if new is None:
            return None
        nodes[node.name] = new
    if any(nodes[name].type.frac_bits != graph[name].type.frac_bits for _, name in graph.outputs):
        return None
    return RingGraph(tuple(nodes.values()), graph.outputs, graph.ring_bits)


def _moved(
    node: RingNode, graph: RingGraph, nodes: dict[str, RingNode], names: frozenset[str], only: Set[str] | None
) -> RingNode | None:
    """`node` on operands that have become wider; helpers are put into `nodes`."""
    extra = [nodes[name].type.frac_bits - graph[name].type.frac_bits for name in node.inputs]
    if node.name in names:
        return _widened(node, nodes[node.inputs[0]].type.frac_bits - node.type.frac_bits, graph.ring_bits)
    if not any(extra):
        return node
    if node.op == "rescale":
        takes_along = _is_truncation(node, graph) and (only is None or node.name in only)
        return node if takes_along else None
    if node.op in _PRODUCTS:
        return _widened(node, sum(extra), graph.ring_bits)
    if node.op not in _LINEAR:
        return None
    most = max(extra)
    lifted = zip(node.inputs, extra, strict=True)
    if any(e < most and _widened(nodes[name], most - e, graph.ring_bits) is None for name, e in lifted):
        return None
    inputs = tuple(_lifted(node, i, nodes, most - e) for i, e in enumerate(extra))
    return _widened(replace(node, inputs=inputs), most, graph.ring_bits)


def _widened(node: RingNode, bits: int, ring_bits: int) -> RingNode | None:
    type = replace(node.type, frac_bits=node.type.frac_bits + bits)
    if type.bound * 2.0**type.frac_bits >= 2.0 ** (ring_bits - HEADROOM_BITS):
        return None
    node = replace(node, type=type)
    return replace(node, attrs=attributes(frac_bits=type.frac_bits)) if node.op == "rescale" else node


def _lifted(node: RingNode, side: int, nodes: dict[str, RingNode], bits: int) -> str:
    """The operand at a scale larger by `bits`, for free."""
    source = nodes[node.inputs[side]]
    if bits == 0:
        return source.name
    name = f"{node.name}_deferred{side}"
    type = replace(source.type, frac_bits=source.type.frac_bits + bits)
    nodes[name] = RingNode(name, "mul_const", (source.name,), attributes(value=2**bits, shift=bits), type, node.origin)
    return name
