"""Look-ups in a private table become products with a one-hot matrix that the client makes.

Given                                    Result
    y = embedding(table, ids)                h = one_hot(ids) {classes=rows of table}
                                             y = matmul(h, table)
where the table is the provider's and the ids are not (public ids: a public one-hot matrix). Neither
side learns anything of the other; the one-hot matrix costs ids x rows shared elements, which `mpcc inspect` shows.
"""

from __future__ import annotations

from mpcc.compiler.graph.ir import Graph, Node
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def private_embedding(graph: Graph) -> Graph:
    """Rewrite every embedding that would run inside MPC (sites filled in)."""
    return rewrite(graph, {}, {"embedding": (_product,)})


def _product(rw: Rewriter, node: Node) -> str | None:
    if node.site != "mpc":
        return None
    table, ids = node.inputs
    rows, looked_up = rw.type(table).shape[0], rw.type(ids).elements
    hot = rw.emit_beside("one_hot", "one_hot", [ids], classes=rows)
    flat = rw.emit_beside("rows", "reshape", [hot], shape=(looked_up, rows))
    found = rw.emit_beside("found", "matmul", [flat, table])
    return rw.emit("reshape", [found], shape=node.type.shape)
