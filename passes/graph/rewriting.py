"""Rebuilding a graph node by node, with rules that may replace a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from mpcc.compiler.graph.ir import Attr, Graph, Node, TensorType, attributes
from mpcc.compiler.ops import KEEPS_NUMBERS, REGISTRY


@dataclass
class Rewriter:
    """The graph so far. A rule reads nodes already rebuilt and appends new ones under unused names."""

    tensors: Mapping[str, torch.Tensor]
    uses: Mapping[str, int]
    nodes: dict[str, Node] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)
    current: Node = field(default_factory=lambda: Node("", ""))

    def emit(self, op: str, inputs: Sequence[str], /, **attrs: Attr) -> str:
        """Append an operation that stands in for the current node; its name, or that of an equal node."""
        type_ = REGISTRY[op].type([self.nodes[i].type for i in inputs], attrs)
        name, n = self.current.name, 1
        while name in self.nodes or (name in self.reserved and name != self.current.name):
            n += 1
            name = f"{self.current.name}_{n}"
        self.nodes[name] = Node(name, op, tuple(inputs), attributes(**attrs), type_, self.current.origin)
        return name

    def type(self, name: str) -> TensorType:
        return self.nodes[name].type

    def constant(self, name: str) -> torch.Tensor | None:
        """The value of a constant node."""
        node = self.nodes[name]
        return self.tensors.get(str(node.attr("tensor"))) if node.op == "constant" else None

    def uniform(self, name: str) -> float | None:
        """The one number that a constant (or layout of one) holds everywhere."""
        while self.nodes[name].op in KEEPS_NUMBERS and len(self.nodes[name].inputs) == 1:
            name = self.nodes[name].inputs[0]
        value = self.constant(name)
        if value is None or value.numel() == 0:
            return None
        first = value.reshape(-1)[0]
        return float(first) if bool((value == first).all()) else None

    def once(self, name: str) -> bool:
        """Whether exactly one node (and no output) reads the value."""
        return self.uses.get(name, 0) == 1


Rule = Callable[[Rewriter, Node], "str | None"]


def rewrite(graph: Graph, tensors: Mapping[str, torch.Tensor], rules: Mapping[str, Sequence[Rule]]) -> Graph:
    """Rebuild `graph` in order; the first rule for a node's op that returns the name of a value replaces the node.

    Bodies of repeats are rewritten too. Names of nodes that stay are kept.
    """
    rewriter = Rewriter(tensors, _uses(graph), reserved={n.name for n in graph.nodes})
    now: dict[str, str] = {}
    for node in graph.nodes:
        moved = replace(node, inputs=tuple(now[i] for i in node.inputs))
        if moved.body is not None:
            moved = replace(moved, body=rewrite(moved.body, tensors, rules))
        rewriter.current = moved
        replaced = next((r for rule in rules.get(node.op, ()) if (r := rule(rewriter, moved)) is not None), None)
        if replaced is None:
            rewriter.nodes[moved.name] = moved
        now[node.name] = moved.name if replaced is None else replaced
    outputs = tuple((key, now[name]) for key, name in graph.outputs)
    return Graph(tuple(rewriter.nodes.values()), outputs)


def _uses(graph: Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for source in node.inputs:
            counts[source] = counts.get(source, 0) + 1
    for _, name in graph.outputs:
        counts[name] = counts.get(name, 0) + 1
    return counts
