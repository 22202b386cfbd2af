"""The ranges stage: calibration inputs through the float graph.

Fills in every value's lowest and highest entry, and of operations inside MPC the statistics that they declare
(`Op.statistics`): what an approximation needs to know of its argument.

Trained decoders give the first tokens of a text activations a hundred times those of others (Sun et al. 2024, "Massive
Activations in Large Language Models"). Positions are public, so a norm multiplies the other positions by a power of
two that brings all of them into one domain (`lifted`, see compiler/ops/normalisation.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.normalisation import MOST_LIFTED, Norm

Tensors = Mapping[str, torch.Tensor]
Range = tuple[float, float]
Rows = tuple[torch.Tensor, torch.Tensor]  # of each position the lowest and the highest number seen

FAR = 16.0  # the first positions stand apart where their mean squares are all this many times those of the others
FEW = 4  # at most one position in so many


def calibrate(
    graph: Graph,
    tensors: Tensors,
    samples: Sequence[Mapping[str, torch.Tensor]],
    progress: Callable[[int], None] = lambda done: None,
) -> Graph:
    """Fill in `range` and `stats` of every node from `samples`.

    Raises:
        RangeError: a calibration input leads to a value that is not finite.
    """
    ranges: dict[str, Range] = {}
    stats: dict[str, dict[str, float]] = {}
    rows: dict[str, Rows] = {}
    names = {n.name for n in graph}
    with torch.no_grad():
        for done, sample in enumerate(samples):
            values = run_graph(graph, dict(sample), tensors, keep=names)
            for node in graph.nodes:
                if node.op not in ("param", "constant") and values[node.name].numel():
                    ranges[node.name] = _wider(ranges.get(node.name), _range(node, values[node.name]))
                    _measure(node, values, stats.setdefault(node.name, {}))
                    _measure_rows(node, values, rows)
            progress(done + 1)
    annotated = [_annotated(n, ranges, stats) for n in graph.nodes]
    return graph.with_nodes([_lifted(n, rows[n.name]) if n.name in rows else n for n in annotated])


def _annotated(node: Node, ranges: Mapping[str, Range], stats: Mapping[str, Mapping[str, float]]) -> Node:
    return replace(node, range=ranges.get(node.name), stats=tuple(sorted(stats.get(node.name, {}).items())))


def _range(node: Node, value: torch.Tensor) -> Range:
    low, high = (float(v) for v in torch.aminmax(value.to(torch.float32)))
    if node.site == "mpc" and not (math.isfinite(low) and math.isfinite(high)):
        raise RangeError(
            f"{node.op} gives a value that is not finite on the calibration inputs",
            where=node.origin.layer or node.name,
            todo="remove inputs whose attention mask is all zero",
        )
    return low, high


def _wider(known: Range | None, new: Range) -> Range:
    return new if known is None else (min(known[0], new[0]), max(known[1], new[1]))


def _measure(node: Node, values: Tensors, seen: dict[str, float]) -> None:
    """Note the declared statistics of one node inside MPC; over several samples the extreme ones count."""
    op = REGISTRY.get(node.op)
    if op is None or not op.statistics or node.site != "mpc":
        return
    measured = op.measure([values[i] for i in node.inputs], dict(node.attrs))
    if set(measured) != set(op.statistics):
        raise InternalError(f"{node.op} declares {sorted(op.statistics)} and measures {sorted(measured)}")
    for key, number in measured.items():
        pick = min if key.endswith("_min") else max
        seen[key] = pick(seen.get(key, number), number)


def _measure_rows(node: Node, values: Tensors, seen: dict[str, Rows]) -> None:
    """Note the mean squares by position of a norm inside MPC; the first dimension is the batch."""
    op, shape = REGISTRY.get(node.op), node.type.shape
    if not isinstance(op, Norm) or node.site != "mpc" or len(shape) < 3 or shape[1] < FEW:
        return
    squares = op.mean_squares(values[node.inputs[0]]).transpose(0, 1).flatten(1)
    low, high = squares.amin(1), squares.amax(1)
    known = seen.get(node.name, (low, high))
    seen[node.name] = torch.minimum(known[0], low), torch.maximum(known[1], high)


def _lifted(node: Node, rows: Rows) -> Node:
    """The norm with its statistics after lifting, where the first positions stand apart.

    Only the beginning is looked at, since every text has one: a later position may be padding in all samples. Of the
    steps that bring both parts closest together an even one is taken, so that more layers are equal.
    """
    low, high = (row.tolist() for row in rows)
    apart = [p for p in range(1, len(low) // FEW + 1) if min(low[:p]) > FAR * max(high[p:]) > 0]
    if not apart:
        return node
    first = apart[0]
    head, rest = (min(low[:first]), max(high[:first])), (min(low[first:]), max(high[first:]))

    def joint(steps: int) -> Range:
        return min(head[0], rest[0] * 4.0**steps), max(head[1], rest[1] * 4.0**steps)

    def spread(steps: int) -> float:
        lowest, highest = joint(steps)
        return highest / max(lowest, 2.0**-64)

    steps = min(range(2, MOST_LIFTED + 1, 2), key=spread)
    lowest, highest = joint(steps)
    stats = {**dict(node.stats), "variance_min": lowest, "variance_max": highest}
    return replace(node.with_attrs(lifted=(first, steps)), stats=tuple(sorted(stats.items())))
