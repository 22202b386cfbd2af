"""The passes that bring a captured graph into the form that the rest of the compiler expects."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mpcc.compiler.graph.ir import Graph
from mpcc.passes.graph.fold_constants import fold_constants
from mpcc.passes.graph.fuse_attention import fuse_attention
from mpcc.passes.graph.simplify import simplify


def canonicalise(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Fold, simplify, fuse, simplify.

    Args:
        graph: as captured.
        tensors: its store.

    Returns:
        The graph and the store it needs: the params and constants still in use and the new constants.
    """
    store = dict(tensors)
    for _ in range(2):
        graph, new = fold_constants(graph, store)
        store |= new
        graph = simplify(fuse_attention(simplify(graph, store), store), store)
    used = {str(n.attr("tensor")) for n in graph.nodes if n.op in ("param", "constant")}
    return graph, {name: tensor for name, tensor in store.items() if name in used}
