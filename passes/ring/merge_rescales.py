"""Merge requests for a scale, so that one truncation serves where several would be placed.

Given                                   Result
    a1 = rescale(a), b1 = rescale(b)        s = add(a, b)
    s = add(a1, b1)                         r = rescale(s)
and likewise for a chain of rescales (the last one stays), for the sum over a dimension and for a slice (fewer elements
are truncated), and for an exact factor. Only requests with a single reader move, and only where the wider integers
still fit the ring.
"""

from __future__ import annotations

from dataclasses import replace

from mpcc.compiler.ring.ir import RingGraph, RingNode, RingType
from mpcc.compiler.ring.rules import PRIMITIVES
from mpcc.compiler.types import attributes
from mpcc.passes.ring.narrow_bounds import narrow_bounds


def merge_rescales(graph: RingGraph) -> RingGraph:
    """Move rescales down past sums, slices and factors; repeat bodies included."""
    return _Merger(graph).run()


class _Merger:
    def __init__(self, graph: RingGraph) -> None:
        self.graph = graph
        self.nodes: dict[str, RingNode] = {}
        self.readers: dict[str, int] = {}
        for node in graph:
            for name in node.inputs:
                self.readers[name] = self.readers.get(name, 0) + 1
        for _, name in graph.outputs:
            self.readers[name] = self.readers.get(name, 0) + 1

    def run(self) -> RingGraph:
        for node in self.graph:
            if node.body is not None:
                node = node.with_body(merge_rescales(node.body))
            self._visit(node)
        return narrow_bounds(self.graph.with_nodes(self.nodes.values()), self.graph)

    def _visit(self, node: RingNode) -> None:
        row = PRIMITIVES[node.op]
        if row.kind == "linear" and row.operands == 2:
            self._sum(node)
        elif row.kind == "linear" or (row.kind == "layout" and node.attr("kind") == "slice"):
            self._past(node)
        elif node.op == "rescale":
            self._chain(node)
        else:
            self.nodes[node.name] = node

    def _request(self, name: str) -> RingNode | None:
        """The downward rescale behind `name` if nothing else reads it."""
        node = self.nodes[name]
        if node.op != "rescale" or self.readers[name] != 1 or node.result_of:
            return None
        source = self.nodes[node.inputs[0]]
        return node if source.type.frac_bits > node.type.frac_bits else None

    def _rescaled(self, node: RingNode, wide: RingNode) -> None:
        """`wide` computes node's value at a larger scale; node becomes the request that brings it down."""
        self.nodes[wide.name] = wide
        bits = node.type.frac_bits
        self.nodes[node.name] = replace(node, op="rescale", inputs=(wide.name,), attrs=attributes(frac_bits=bits))

    def _sum(self, node: RingNode) -> None:
        left, right = (self._request(name) for name in node.inputs)
        if left is None or right is None:
            self.nodes[node.name] = node
            return
        sources = [self.nodes[left.inputs[0]], self.nodes[right.inputs[0]]]
        bits = max(s.type.frac_bits for s in sources)
        bounds = [min(s.type.bound, r.type.bound) for s, r in zip(sources, (left, right), strict=True)]
        type = RingType(node.type.shape, bits, sum(bounds), node.type.public)
        if not type.fits(self.graph.ring_bits):
            self.nodes[node.name] = node
            return
        lifted = [self._lift(s, bits, node, i) for i, s in enumerate(sources)]
        type = type.within(sum(s.type.bound for s in lifted))
        wide = replace(node, name=f"{node.name}_wide", inputs=tuple(s.name for s in lifted), type=type, result_of="")
        self._rescaled(node, wide)

    def _lift(self, source: RingNode, bits: int, node: RingNode, side: int) -> RingNode:
        shift = bits - source.type.frac_bits
        if shift == 0:
            return source
        type = source.type.at_scale(bits)
        lifted = RingNode(
            f"{node.name}_lift{side}",
            "mul_const",
            (source.name,),
            attributes(value=2**shift, shift=shift),
            type,
            node.origin,
        )
        self.nodes[lifted.name] = lifted
        return lifted

    def _chain(self, node: RingNode) -> None:
        inner = self._request(node.inputs[0])
        if inner is not None and node.type.frac_bits <= inner.type.frac_bits:
            node = replace(node, inputs=inner.inputs)
        self.nodes[node.name] = node

    def _past(self, node: RingNode) -> None:
        request = self._request(node.inputs[0])
        if request is None:
            self.nodes[node.name] = node
            return
        source = self.nodes[request.inputs[0]]
        bits = node.type.frac_bits + source.type.frac_bits - request.type.frac_bits
        type = node.type.at_scale(bits)
        if not type.fits(self.graph.ring_bits):
            self.nodes[node.name] = node
            return
        wide = replace(node, name=f"{node.name}_wide", inputs=(source.name,), type=type, result_of="")
        self._rescaled(node, wide)
