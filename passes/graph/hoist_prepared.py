"""What needs no input is computed once, when the program is compiled: by the provider, or in public.

Given                                        Result
    w' = mul(w, gamma)   (provider's)            w' = param {tensor="derived.w'"}
    y  = linear(x, w')                           y  = linear(x, w')

Every maximal value that depends on weights and constants alone becomes a parameter of its own; `prepare` gives its
data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.types import attributes
from mpcc.passes.graph.cut import moved_into_mpc


@dataclass(frozen=True)
class Prepared:
    """A tensor computed at compile time: its name in the store, the node that defines it, and who may read it."""

    tensor: str
    node: str
    visibility: str


def hoist_prepared(graph: Graph) -> tuple[Graph, tuple[Prepared, ...]]:
    """Replace what the provider (or anybody) can compute without inputs by parameters.

    `graph` has visibilities and sites. What is free in MPC and smaller before than after (an expansion) is left there.
    """
    fixed = {n.name for n in graph.nodes if n.site in ("provider", "compile") and not n.is_leaf}
    fixed -= moved_into_mpc(graph, ("provider", "compile"))
    read = {i for n in graph.nodes if n.name not in fixed for i in n.inputs} | {v for _, v in graph.outputs}
    prepared = tuple(
        Prepared(
            f"{'derived' if graph[name].visibility == 'provider' else 'folded'}.{name}", name, graph[name].visibility
        )
        for name in (n.name for n in graph.nodes)
        if name in fixed and name in read
    )
    by_node = {p.node: p for p in prepared}
    nodes = [_as_param(n, by_node[n.name]) if n.name in by_node else n for n in graph.nodes]
    return without_dead_nodes(
        graph.with_nodes([n for n in nodes if n.name not in fixed or n.name in by_node])
    ), prepared


def _as_param(node: Node, prepared: Prepared) -> Node:
    return replace(node, op="param", inputs=(), attrs=attributes(tensor=prepared.tensor))


def prepare(
    graph: Graph, prepared: tuple[Prepared, ...], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The data of prepared tensors; `graph` is the graph before hoisting."""
    if not prepared:
        return {}
    targets = {p.node for p in prepared}
    part = without_dead_nodes(Graph(graph.nodes, tuple((n, n) for n in sorted(targets))))
    part = part.with_nodes([n for n in part.nodes if n.op != "input"])
    values = run_graph(part, {}, tensors, dtype=torch.float64)
    return {p.tensor: values[p.node].to(torch.float32).detach().contiguous() for p in prepared}
