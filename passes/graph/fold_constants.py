"""Evaluate at compile time what depends on no input and no weight.

    %a = constant {tensor="const.0"}      Result:
    %b = ge(%a, %a)                       %b = constant {tensor="const.1"}
    %y = where(%b, %x, %x)                %y = where(%b, %x, %x)

Operations on params are never folded: whether a weight is public is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.types import attributes

_NEVER = frozenset({"input", "state", "param", "arg", "repeat", "take"})


def fold_constants(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Fold.

    Args:
        graph: a graph; bodies of repeats are left alone.
        tensors: the store; only its constants are read.

    Returns:
        The graph and the constants that are new in it, by name.
    """
    fixed: set[str] = set()
    for node in graph.nodes:
        if node.op == "constant" or (node.op not in _NEVER and all(i in fixed for i in node.inputs)):
            fixed.add(node.name)
    wanted = {i for n in graph.nodes if n.name not in fixed for i in n.inputs if i in fixed}
    wanted |= {name for _, name in graph.outputs if name in fixed}
    wanted = {name for name in wanted if graph[name].op != "constant"}
    if not wanted:
        return without_dead_nodes(graph), {}
    part = Graph(tuple(n for n in graph.nodes if n.name in fixed), tuple((n, n) for n in sorted(wanted)))
    values = run_graph(without_dead_nodes(part), {}, tensors)
    new: dict[str, torch.Tensor] = {}
    nodes = [_constant(n, values[n.name], tensors, new) if n.name in wanted else n for n in graph.nodes]
    return without_dead_nodes(graph.with_nodes(nodes)), new


def _constant(
    node: Node, value: torch.Tensor, tensors: Mapping[str, torch.Tensor], new: dict[str, torch.Tensor]
) -> Node:
    """The node as a constant, whose tensor is put into `new`; equal tensors are stored once."""
    name = next((k for k, t in new.items() if t.dtype == value.dtype and torch.equal(t, value)), "")
    if not name:
        n = 0
        while f"const.{n}" in tensors or f"const.{n}" in new:
            n += 1
        name = f"const.{n}"
        new[name] = value.contiguous().clone()
    return replace(node, op="constant", inputs=(), attrs=attributes(tensor=name))
