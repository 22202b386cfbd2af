"""A value that nobody declared as output is never revealed: all other results of the model go.

Given                                         Result, for "logits"
    return "logits" = y, "pooled" = p             return "logits" = y
and p is no longer computed, unless y needs it.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, without_dead_nodes


def choose_outputs(graph: Graph, output: str) -> Graph:
    """Keep the declared outputs: the model's logits (without any, its first result), or with "all" every one."""
    if output == "all":
        return graph
    chosen = [o for o in graph.outputs if o[0] == "logits"] or [graph.outputs[0]]
    return without_dead_nodes(Graph(graph.nodes, tuple(chosen)))
