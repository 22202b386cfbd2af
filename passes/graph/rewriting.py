"""Rebuilding a graph node by node, with rules that may replace a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import KEEPS_NUMBERS
from mpcc.compiler.types import Attr, TensorType


@dataclass
class Rewriter:
    """The graph so far. A rule reads nodes already rebuilt and appends new ones under unused names."""

    tensors: Mapping[str, torch.Tensor]
    uses: Mapping[str, int]
    builder: GraphBuilder
    current: Node = field(default_factory=lambda: Node("", ""))

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.builder.nodes

    def emit(self, op: str, inputs: Sequence[str], /, **attrs: Attr) -> str:
        """Append an operation that stands in for the current node; its name."""
        name = self.current.name
        return self.builder.emit(name, op, inputs, attrs, origin=self.current.origin, replacing=name)

    def emit_beside(
        self, suffix: str, op: str, inputs: Sequence[str], like: Node | None = None, /, **attrs: Attr
    ) -> str:
        """Append a helper, named after `like` (the current node unless told otherwise); its name."""
        like = like or self.current
        return self.builder.emit(f"{like.name}_{suffix}", op, inputs, attrs, origin=like.origin)

    def type(self, name: str) -> TensorType:
        return self.builder.type(name)

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
    rewriter = Rewriter(tensors, _uses(graph), GraphBuilder(n.name for n in graph.nodes))
    now: dict[str, str] = {}
    for node in graph.nodes:
        moved = replace(node, inputs=tuple(now[i] for i in node.inputs))
        if moved.body is not None:
            moved = replace(moved, body=rewrite(moved.body, tensors, rules))
        rewriter.current = moved
        replaced = next((r for rule in rules.get(node.op, ()) if (r := rule(rewriter, moved)) is not None), None)
        now[node.name] = rewriter.builder.keep(moved) if replaced is None else replaced
    return rewriter.builder.graph((key, now[name]) for key, name in graph.outputs)


def _uses(graph: Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for source in node.inputs:
            counts[source] = counts.get(source, 0) + 1
    for _, name in graph.outputs:
        counts[name] = counts.get(name, 0) + 1
    return counts
