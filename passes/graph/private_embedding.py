"""Look-ups in a private table become products with a one-hot matrix that the client makes.

Given                                    Result
    y = embedding(table, ids)                h = one_hot(ids) {classes=rows of table}
                                             y = matmul(h, table)
where the table is the provider's and the ids are not (public ids: a public one-hot matrix). Neither
side learns anything of the other; the one-hot matrix costs ids x rows shared elements, which `mpcc inspect` shows.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.types import TensorType, attributes


def private_embedding(graph: Graph) -> Graph:
    """Rewrite every embedding that would run inside MPC (sites filled in)."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "embedding" and node.site == "mpc":
            table, ids = graph[node.inputs[0]], graph[node.inputs[1]]
            rows = table.type.shape[0]
            hot = Node(
                f"{node.name}_one_hot",
                "one_hot",
                (ids.name,),
                attributes(classes=rows),
                TensorType((*ids.type.shape, rows), "f32"),
                node.origin,
            )
            flat = (ids.type.elements, rows)
            rolled = Node(
                f"{node.name}_rows",
                "reshape",
                (hot.name,),
                attributes(shape=flat),
                TensorType(flat, "f32"),
                node.origin,
            )
            product = Node(
                f"{node.name}_found",
                "matmul",
                (rolled.name, table.name),
                (),
                TensorType((flat[0], node.type.shape[-1]), "f32"),
                node.origin,
            )
            back = Node(
                node.name, "reshape", (product.name,), attributes(shape=node.type.shape), node.type, node.origin
            )
            nodes += [hot, rolled, product, back]
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)
