"""Every input is the client's secret, but for those that the user declared public.

Given                          Result, with mask declared public
    mask = input                   mask = input {role="public"}
    ids  = input                   ids  = input {role="client"}
"""

from __future__ import annotations

from collections.abc import Collection

from mpcc.compiler.errors import MpccError
from mpcc.compiler.graph.ir import Graph


def assign_roles(graph: Graph, public_inputs: Collection[str]) -> Graph:
    """Mark the inputs.

    Raises:
        MpccError: there is no such input.
    """
    names = {n.name for n in graph.nodes if n.op == "input"}
    for name in public_inputs:
        if name not in names:
            raise MpccError(f"there is no input {name!r} to make public", todo=f"inputs: {', '.join(sorted(names))}")
    return graph.with_nodes(
        [n.with_attrs(role="public" if n.name in public_inputs else "client") if n.op == "input" else n for n in graph]
    )
