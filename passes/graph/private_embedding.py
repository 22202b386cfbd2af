"""Look-ups in a private table become products with a one-hot matrix that the client makes.

Given                                    Result
    y = embedding(table, ids)                h = one_hot(ids) {classes=rows of table}
                                             y = matmul(h, table)
where the table is the provider's and the ids are not (public ids: a public one-hot matrix). Neither
side learns anything of the other; the one-hot matrix costs ids x rows shared elements, which `mpcc inspect` shows.
pick(x, ids), one place of each input of a batch, is a product with one-hot rows in the same way.
"""

from __future__ import annotations

import math

from mpcc.compiler.graph.ir import Graph, Node
from mpcc.passes.graph.rewriting import Rewriter, rewrite


def private_embedding(graph: Graph) -> Graph:
    """Rewrite every embedding and pick that would run inside MPC (sites filled in)."""
    return rewrite(graph, {}, {"embedding": (_product,), "pick": (_picked,)})


def _product(rw: Rewriter, node: Node) -> str | None:
    if node.site != "mpc":
        return None
    table, ids = node.inputs
    rows, looked_up = rw.type(table).shape[0], rw.type(ids).elements
    hot = rw.emit_beside("one_hot", "one_hot", [ids], classes=rows)
    flat = rw.emit_beside("rows", "reshape", [hot], shape=(looked_up, rows))
    found = rw.emit_beside("found", "matmul", [flat, table])
    return rw.emit("reshape", [found], shape=node.type.shape)


def _picked(rw: Rewriter, node: Node) -> str | None:
    dim = node.attr("dim")
    if node.site != "mpc" or not isinstance(dim, int):
        return None
    (x, ids), shape = node.inputs, rw.type(node.inputs[0]).shape
    first = (0, dim, *(d for d in range(1, len(shape)) if d != dim))  # x with the picked dimension second
    moved = rw.emit_beside("first", "permute", [x], dims=first)
    rest = tuple(shape[d] for d in first[2:])
    flat = rw.emit_beside("rows", "reshape", [moved], shape=(shape[0], shape[dim], math.prod(rest)))
    hot = rw.emit_beside("one_hot", "one_hot", [ids], classes=shape[dim])
    row = rw.emit_beside("row", "reshape", [hot], shape=(node.type.shape[0], 1, shape[dim]))
    found = rw.emit_beside("found", "matmul", [row, flat])
    return rw.emit("reshape", [found], shape=node.type.shape)
