"""Split a labelled graph at the cheapest boundary into what the client computes and what runs in MPC.

Given (m is the client's, w the provider's)      Result: the client's part       in MPC
    m = cast(x)             [B, S]                   m = cast(x)                     m = input      [B, S]
    e = expand(m)     [B, 1, S, S]                   shares m                        e = expand(m)
    y = mul(e, w)                                                                    y = mul(e, w)

Everything secret runs in MPC. A value that one role can compute may still be moved into MPC when that is free there
(layout, casts) and the operand is smaller to share than the result: a [B, S] mask instead of its [B, 1, S, S]
expansion. Choosing the shared values is a minimum cut (networkx) with the bytes to share a value as capacities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import networkx as nx

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import KEEPS_NUMBERS, WHOLE
from mpcc.compiler.ops.base import FLOATS
from mpcc.compiler.types import attributes

SHARE_BYTES = 8  # per ring element, whoever shares it


@dataclass(frozen=True)
class Regions:
    """What each role computes. `client`: inputs -> shared tensors, by the name of the graph node; `mpc`: the rest,
    whose inputs are those tensors.
    """

    client: Graph
    mpc: Graph


def cut(graph: Graph) -> Regions:
    """Split `graph`, in which what needs no input is prepared, into regions.

    Raises:
        InternalError: MPC would read what the provider has yet to compute.
    """
    moved = moved_into_mpc(graph, ("client",)) | moved_into_mpc(graph, ("provider", "compile"))
    inside = {n.name for n in graph.nodes if n.site == "mpc"} | moved
    boundary = {n.name for n in _boundary(graph, inside)}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name in inside:
            nodes.append(replace(node, site="mpc"))
        elif node.name in boundary and node.site == "client":
            role = "public" if node.visibility == "public" else "client"
            attrs = attributes(role=role, whole=_is_whole(graph, node))
            nodes.append(replace(node, op="input", inputs=(), attrs=attrs))
        elif node.name in boundary:
            if not node.is_leaf:
                raise InternalError(f"{node.name} = {node.op} is computed by the {node.site} and was not prepared")
            nodes.append(node)
    mpc = Graph(tuple(nodes), tuple((k, v) for k, v in graph.outputs if v in inside))
    shared = tuple((n.name, n.name) for n in mpc if n.op == "input")
    outside = [n for n in graph.nodes if n.name not in inside or n.is_leaf]
    return Regions(without_dead_nodes(Graph(tuple(outside), shared)), mpc)


def _is_whole(graph: Graph, node: Node) -> bool:
    """Whether the value holds whole numbers only, whatever its element type."""
    if node.op in KEEPS_NUMBERS:
        return all(_is_whole(graph, graph[name]) for name in node.inputs)
    return node.type.dtype not in FLOATS or node.op in WHOLE


def _boundary(graph: Graph, inside: set[str]) -> list[Node]:
    read = {source for node in graph.nodes if node.name in inside for source in node.inputs}
    return [node for node in graph.nodes if node.name in read and node.name not in inside]


def moved_into_mpc(graph: Graph, sites: Iterable[str]) -> set[str]:
    """Nodes of these sites that are better computed in MPC, by minimum cut between source (outside) and sink (MPC)."""
    own = {n.name for n in graph.nodes if n.site in set(sites)}
    users = graph.users()
    flow = nx.DiGraph()
    flow.add_nodes_from(["outside", "mpc"])
    for name in own:
        node = graph[name]
        consumers = [u for u in users[name] if u in own or graph[u].site == "mpc"]
        if not any(graph[u].site == "mpc" for u in consumers) and not any(u in own for u in consumers):
            continue
        flow.add_edge(name, f"share:{name}", capacity=node.type.elements * SHARE_BYTES)
        if node.is_leaf or node.op not in KEEPS_NUMBERS:
            flow.add_edge("outside", name)  # no capacity: infinite
        else:
            flow.add_edge("outside", name, capacity=1e-3)  # ties: leave work with its owner
        for user in consumers:
            target = "mpc" if graph[user].site == "mpc" else user
            flow.add_edge(f"share:{name}", target)
            if user in own:
                flow.add_edge(user, name)  # a value computed outside cannot read one computed in MPC
    if flow.number_of_edges() == 0:
        return set()
    _, (_, sink_side) = nx.minimum_cut(flow, "outside", "mpc")
    return {name for name in own if name in sink_side}
