"""What needs no input is computed once, when the program is compiled: by the provider, or in public.

Given                                        Result
    w' = mul(w, gamma)   (provider's)            w' = param {tensor="derived.w'"}
    y  = linear(x, w')                           y  = linear(x, w')

Every maximal value that depends on weights and constants alone becomes a parameter of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.types import attributes
from mpcc.passes.graph.cut import moved_into_mpc


def hoist_prepared(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Replace what the provider (or anybody) can compute without inputs by parameters.

    `graph` has visibilities and sites. What is free in MPC and smaller before than after (an expansion) is left there.
    Returns the graph and the tensors that are new in it, computed in float64.
    """
    early = {n.name for n in graph.nodes if n.site in ("provider", "compile") and not n.is_leaf}
    early -= moved_into_mpc(graph, ("provider", "compile"))
    read = {i for n in graph.nodes if n.name not in early for i in n.inputs} | {v for _, v in graph.outputs}
    names = {n.name: _tensor_name(n) for n in graph.nodes if n.name in early and n.name in read}
    nodes = [
        replace(n, op="param", inputs=(), attrs=attributes(tensor=names[n.name])) if n.name in names else n
        for n in graph.nodes
        if n.name not in early or n.name in names
    ]
    return without_dead_nodes(graph.with_nodes(nodes)), _computed(graph, names, tensors)


def _tensor_name(node: Node) -> str:
    return f"{'derived' if node.visibility == 'provider' else 'folded'}.{node.name}"


def _computed(graph: Graph, names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The data of the new parameters; `names` are their tensors' by node."""
    if not names:
        return {}
    part = without_dead_nodes(Graph(graph.nodes, tuple((n, n) for n in sorted(names))))
    part = part.with_nodes([n for n in part.nodes if n.op != "input"])
    values = run_graph(part, {}, tensors, dtype=torch.float64)
    return {tensor: _narrow(values[node]).detach().contiguous() for node, tensor in names.items()}


def _narrow(value: torch.Tensor) -> torch.Tensor:
    """As float32, where it is real: masks stay masks."""
    return value.to(torch.float32) if value.is_floating_point() else value
