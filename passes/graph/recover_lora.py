"""A fully fine-tuned weight that differs from the open one by little rank becomes the open one and an adapter.

Given                          Result
    y = linear(x, W, b)            h = linear(x, W0, b)         W0: the base's own tensor, public
                                   l = linear(linear(x, A), B)  A, B: private, from W - W0 = B A + error
                                   y = add(h, l)

W0 comes from the base checkpoint alone, under the name that PEFT gives to a wrapped layer, so that the partition finds
the evidence for it as for any other tensor; names of A and B are those of an adapter, which is private whatever it
holds. The singular values are split evenly between A and B. Weights of the same place in all layers get the same rank,
so that equal layers stay equal and the ranks tell less about the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.partition import PRIVATE, Partition
from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Node, without_dead_nodes
from mpcc.compiler.types import TensorType

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Recovered:
    """A weight in its two parts.

    `error` is the Frobenius norm of what was lost, as a share of the norm of W - W0; `error_of_weight` of that of W.
    """

    tensor: str
    rank: int
    full_rank: int
    error: float
    error_of_weight: float


def recover_lora(model: Captured, partition: Partition, wanted: int | float) -> tuple[Captured, tuple[Recovered, ...]]:
    """Replace every private weight of a linear layer whose update has a low enough rank.

    Args:
        model: the captured model; nothing but linear layers on plain weights is changed.
        partition: names the base.
        wanted: the rank (a whole number), or the largest error (below 1) with the smallest rank that has it.

    Raises:
        MpccError: no base, or a bad rank or error.
    """
    if partition.base is None:
        raise MpccError("a low-rank update is found by comparing with the base model", todo="name it with --base")
    by_error = isinstance(wanted, float)
    if not (0 < wanted < 1 if by_error else wanted >= 1):
        raise MpccError(f"--recover-lora {wanted:g} is neither a rank (1, 2, ...) nor an error between 0 and 1")
    updates = _updates(model, partition, {e.tensor for e in partition.label(model) if e.visibility == PRIVATE})
    parts = {name: torch.linalg.svd(w.double() - w0.double(), full_matrices=False) for name, (w, w0) in updates.items()}
    ranks = {name: _rank(s, wanted) if by_error else int(wanted) for name, (_, s, _) in parts.items()}
    places: dict[str, int] = {}
    for name, rank in ranks.items():
        places[_place(name)] = max(rank, places.get(_place(name), 0))
    chosen: dict[str, tuple[torch.Tensor, ...]] = {}
    found: list[Recovered] = []
    for name, (u, s, vh) in parts.items():
        rank, (rows, columns) = min(places[_place(name)], len(s)), updates[name][0].shape
        if rank * (rows + columns) >= rows * columns:
            continue
        root = s[:rank].sqrt()
        chosen[name] = updates[name][1], (root[:, None] * vh[:rank]).float(), (u[:, :rank] * root).float()
        lost, norm = float(s[rank:].norm()), float(s.norm())
        whole = float(updates[name][0].double().norm())
        found.append(Recovered(name, rank, len(s), lost / norm if norm else 0.0, lost / whole if whole else 0.0))
    return _rewritten(model, chosen), tuple(found)


def _updates(model: Captured, partition: Partition, private: set[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Tensor -> (W, W0) for private weights that are read by linear layers only and have a counterpart in the base."""
    assert partition.base is not None
    matches = partition.matched(model.tensors)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    users = model.graph.users()
    for node in model.graph:
        name = str(node.attr("tensor"))
        if node.op != "param" or name not in private or name not in matches or "lora_" in name:
            continue
        ours, theirs = model.tensors[name], partition.base[matches[name]]
        linear = all(_is_weight_of(model.graph[u], node.name) for u in users[node.name])
        if (
            linear
            and users[node.name]
            and ours.shape == theirs.shape
            and ours.dim() == 2
            and ours.dtype == theirs.dtype
        ):
            found[name] = ours, theirs
    return found


def _is_weight_of(node: Node, weight: str) -> bool:
    return node.op == "linear" and node.inputs[1] == weight and weight not in (node.inputs[0], *node.inputs[2:])


def _rank(singular: torch.Tensor, error: float) -> int:
    """The smallest rank whose remainder has at most `error` of the norm."""
    squares = singular.square()
    rest = squares.sum() - squares.cumsum(0)
    within = (rest <= error**2 * squares.sum()).nonzero()
    return int(within[0, 0]) + 1 if len(within) else len(singular)


def _place(name: str) -> str:
    """The name without the number of the layer."""
    return _NUMBER.sub("*", name)


def _rewritten(model: Captured, chosen: Mapping[str, tuple[torch.Tensor, ...]]) -> Captured:
    if not chosen:
        return model
    tensors, kinds, trainable = dict(model.tensors), dict(model.kinds), dict(model.trainable)
    builder = GraphBuilder(n.name for n in model.graph)
    parts_of: dict[str, list[str]] = {}  # the node of a weight -> those of W0, A, B
    for node in model.graph:
        name = str(node.attr("tensor"))
        if node.op == "param" and name in chosen:
            parts_of[node.name] = _leaves(builder, node, name, chosen[name])
            for leaf, value in zip(parts_of[node.name], chosen[name], strict=True):
                key = str(builder.nodes[leaf].attr("tensor"))
                tensors[key], kinds[key], trainable[key] = value, "parameter", leaf != parts_of[node.name][0]
            del tensors[name]
        elif node.op == "linear" and node.inputs[1] in parts_of:
            _apart(builder, node, parts_of[node.inputs[1]])
        else:
            builder.keep(node)
    graph = without_dead_nodes(builder.graph(model.graph.outputs))
    return replace(model, graph=graph, tensors=tensors, kinds=kinds, trainable=trainable)


def _leaves(builder: GraphBuilder, node: Node, name: str, values: Iterable[torch.Tensor]) -> list[str]:
    stem = name.removesuffix(".weight")
    return [
        builder.leaf(
            f"{node.name}_{part.partition('.')[0].lower()}",
            "param",
            TensorType(tuple(value.shape), node.type.dtype),
            {"tensor": f"{stem}.{part}.weight"},
            node.origin,
        )
        for part, value in zip(("base_layer", "lora_A.recovered", "lora_B.recovered"), values, strict=True)
    ]


def _apart(builder: GraphBuilder, node: Node, leaves: list[str]) -> None:
    """The nodes in place of a linear layer; the last one has its name."""
    base, a, b = leaves
    x, *bias = node.inputs[0], *node.inputs[2:]
    whole = builder.emit(f"{node.name}_base", "linear", [x, base, *bias], origin=node.origin)
    thin = builder.emit(f"{node.name}_thin", "linear", [x, a], origin=node.origin)
    low = builder.emit(f"{node.name}_low", "linear", [thin, b], origin=node.origin)
    builder.emit(node.name, "add", [whole, low], origin=node.origin, replacing=node.name)
