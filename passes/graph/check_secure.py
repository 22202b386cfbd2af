"""May everything that was placed inside MPC run there? Changes nothing; refuses with all reasons in one error.

Given                                              Result
    y = aten.sin.default(x)   site=mpc                 UnsupportedError: it has no secure form in mpcc ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mpcc.compiler.errors import UnsupportedError
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import TensorType

_STRUCTURE = frozenset({"repeat", "take"})


def check_secure(graph: Graph) -> None:
    """Refuse a graph with operations at site "mpc" that have no secure form.

    Raises:
        UnsupportedError: every such node with its layer, source line and the reason.
    """
    lines = [_line(node, why) for node, why in _refused(graph)]
    if lines:
        raise UnsupportedError(
            f"{len(lines)} operations on secret values cannot run inside MPC:\n" + "\n".join(lines) + "\n",
            todo="make what they read public or one party's, or replace them in the model",
        )


def _refused(graph: Graph) -> Iterator[tuple[Node, str]]:
    types: Mapping[str, TensorType] = {n.name: n.type for n in graph.nodes}
    for node in graph.nodes:
        if node.body is not None:
            yield from _refused(node.body)
        if node.is_leaf or node.op in _STRUCTURE or node.site != "mpc":
            continue
        op = REGISTRY.get(node.op)
        why = "mpcc does not know it" if op is None else op.refusal([types[i] for i in node.inputs], node.type)
        if why:
            yield node, why


def _line(node: Node, why: str) -> str:
    place = node.origin.layer or "the model itself"
    return f"  {node.op} ({node.name}) in {place}, {node.origin.source or 'no source line'}: {why}"
