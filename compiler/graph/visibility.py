"""The infer stage: who may read each value, and where it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.types import VISIBILITIES

_BY_READERS = {readers: name for name, readers in VISIBILITIES.items()}


def meet(visibilities: list[str]) -> str:
    """The visibility of a result: only who may read every operand may read it. Of nothing: public."""
    readers = VISIBILITIES["public"]
    for visibility in visibilities:
        readers = readers & VISIBILITIES[visibility]
    return _BY_READERS[readers]


def infer(graph: Graph, labels: Mapping[str, str]) -> Graph:
    """Fill in `visibility` and `site` of every node.

    `labels` gives the visibility of each tensor ("public" | "provider"); a param without a label is the provider's
    (default deny). Sites: what no input reaches is known at compile time (public) or to the provider; the rest of the
    public and the client's values is computed by the client; what nobody may read, in MPC. So is what the
    provider could compute from its weights and a public input: it takes no part in clear while the program runs.
    """
    done: dict[str, Node] = {}
    moving: set[str] = set()  # depends on an input or a state
    for node in graph.nodes:
        visibility = _leaf(node, labels) if node.is_leaf else meet([done[i].visibility for i in node.inputs])
        if node.op in ("input", "state") or any(i in moving for i in node.inputs):
            moving.add(node.name)
        done[node.name] = replace(node, visibility=visibility, site=_site(visibility, node.name in moving))
    return graph.with_nodes(list(done.values()))


def _leaf(node: Node, labels: Mapping[str, str]) -> str:
    if node.op == "input":
        return str(node.attr("role"))
    if node.op == "constant":
        return "public"
    if node.op == "state":
        return "secret"
    if node.op == "param":
        return labels.get(str(node.attr("tensor")), "provider")
    raise InternalError(f"{node.name}: {node.op} outside a loop body")


def _site(visibility: str, moving: bool) -> str:
    if visibility == "secret":
        return "mpc"
    if visibility == "provider":
        return "mpc" if moving else "provider"
    return "client" if moving or visibility == "client" else "compile"


def why(graph: Graph, name: str, reasons: Mapping[str, str]) -> list[str]:
    """Lines that say why a node is where it is: the operands that took each reader away, down to their leaves.

    `reasons` gives the evidence of each tensor.
    """
    node = graph[name]
    lines = [f"{name} = {node.op} is {node.visibility}, computed at {node.site}"]
    if node.origin.layer:
        lines.append(f"  in {node.origin.layer} {node.origin.source}".rstrip())
    for role in ("client", "provider"):
        if role in VISIBILITIES[node.visibility]:
            continue
        leaf = _culprit(graph, name, role)
        if leaf is not None:
            lines.append(f"  the {role} may not read it: it depends on {_describe(leaf, reasons)}")
    if node.visibility == "public":
        lines.append("  everything it depends on is public")
    return lines


def _culprit(graph: Graph, name: str, role: str) -> Node | None:
    """The nearest leaf that `role` may not read, by breadth-first search."""
    queue, seen = [name], {name}
    while queue:
        node = graph[queue.pop(0)]
        if node.is_leaf and role not in VISIBILITIES[node.visibility]:
            return node
        for source in node.inputs:
            if source not in seen and role not in VISIBILITIES[graph[source].visibility]:
                seen.add(source)
                queue.append(source)
    return None


def _describe(leaf: Node, reasons: Mapping[str, str]) -> str:
    if leaf.op == "input":
        return f"the client's input {leaf.name}"
    if leaf.op == "state":
        return f"the state {leaf.attr('state')}, which is kept in shares"
    tensor = str(leaf.attr("tensor"))
    return f"the provider's weight {tensor} ({reasons.get(tensor, 'nobody proved it public')})"
