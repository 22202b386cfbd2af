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

from collections import ChainMap
from collections.abc import MutableMapping, Set
from dataclasses import replace
from heapq import heappop, heappush

from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.rules import PRIMITIVES
from mpcc.compiler.types import attributes
from mpcc.passes.ring.narrow_bounds import narrow_bounds

Nodes = MutableMapping[str, RingNode]  # by name, as they are once requests have been left out


def defer_rescales(graph: RingGraph, only: Set[str] | None = None) -> RingGraph:
    """Leave out requests for a smaller scale, the largest values first; repeat bodies included.

    `only`: the requests (by node name) that may be left out or take others along; None for all.
    """
    bodies = graph.with_nodes(n if n.body is None else n.with_body(defer_rescales(n.body, only)) for n in graph)
    deferral = _Deferral(bodies, only)
    for node in sorted(filter(deferral.takes_part, bodies), key=lambda n: -n.type.elements):
        deferral.leave_out(node)
    return narrow_bounds(deferral.result(), graph)


class _Deferral:
    """A graph from which requests are left out one after the other."""

    def __init__(self, graph: RingGraph, only: Set[str] | None) -> None:
        self.graph, self.only = graph, only
        self.left_out: frozenset[str] = frozenset()
        self.nodes: dict[str, RingNode] = dict(graph.by_name)
        self.outputs = {name for _, name in graph.outputs}
        self.position = {node.name: i for i, node in enumerate(graph)}
        self.readers: dict[str, list[str]] = {}
        for node in graph:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node.name)

    def takes_part(self, node: RingNode) -> bool:
        """Whether a node is a request for a smaller scale that may move."""
        if node.op != "rescale" or self.graph[node.inputs[0]].type.frac_bits <= node.type.frac_bits:
            return False
        return self.only is None or node.name in self.only

    def leave_out(self, request: RingNode) -> None:
        """Leave out one more request, unless what reads it cannot work on the wider value."""
        chosen = self.left_out | {request.name}
        moved: dict[str, RingNode] = {}
        trial = ChainMap(moved, self.nodes)
        waiting = [self.position[request.name]]
        while waiting:
            node = self.graph.nodes[heappop(waiting)]
            if node.name in moved:
                continue
            new = self._moved(node, trial, chosen)
            if new is None or (node.name in self.outputs and new.type.frac_bits != node.type.frac_bits):
                return
            moved[node.name] = new
            if new.type.frac_bits != self.nodes[node.name].type.frac_bits:
                for reader in self.readers.get(node.name, ()):
                    heappush(waiting, self.position[reader])
        self.left_out = chosen
        self.nodes.update(moved)

    def result(self) -> RingGraph:
        """The graph without the requests that were left out."""
        nodes: dict[str, RingNode] = {}
        for node in self.graph:
            new = self._moved(node, nodes, self.left_out)
            assert new is not None  # each of them was tried
            nodes[node.name] = new
        return self.graph.with_nodes(nodes.values())

    def _moved(self, node: RingNode, nodes: Nodes, chosen: frozenset[str]) -> RingNode | None:
        """`node` on operands that have become wider, None where that cannot be; helpers are put into `nodes`."""
        ring_bits = self.graph.ring_bits
        extra = [nodes[name].type.frac_bits - self.graph[name].type.frac_bits for name in node.inputs]
        if node.name in chosen:
            return _widened(node, nodes[node.inputs[0]].type.frac_bits - node.type.frac_bits, ring_bits)
        if not any(extra):
            return node
        kind = PRIMITIVES[node.op].kind
        if node.op == "rescale":
            return node if self.takes_part(node) else None
        if kind == "product":
            return _widened(node, sum(extra), ring_bits)
        if kind not in ("linear", "layout"):
            return None
        most = max(extra)
        lifted = zip(node.inputs, extra, strict=True)
        if any(e < most and _widened(nodes[name], most - e, ring_bits) is None for name, e in lifted):
            return None
        inputs = tuple([_lifted(node, i, nodes, most - e) for i, e in enumerate(extra)])
        return _widened(replace(node, inputs=inputs), most, ring_bits)


def _widened(node: RingNode, bits: int, ring_bits: int) -> RingNode | None:
    type = node.type.at_scale(node.type.frac_bits + bits)
    if not type.fits(ring_bits):
        return None
    node = node.with_type(type)
    return replace(node, attrs=attributes(frac_bits=type.frac_bits)) if node.op == "rescale" else node


def _lifted(node: RingNode, side: int, nodes: Nodes, bits: int) -> str:
    """The operand at a scale larger by `bits`, for free."""
    source = nodes[node.inputs[side]]
    if bits == 0:
        return source.name
    name = f"{node.name}_deferred{side}"
    type = source.type.at_scale(source.type.frac_bits + bits)
    nodes[name] = RingNode(name, "mul_const", (source.name,), attributes(value=2**bits, shift=bits), type, node.origin)
    return name
