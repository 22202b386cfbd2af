"""The ranges stage: calibration inputs through the float graph.

Fills in every value's lowest and highest entry, and of operations inside MPC the statistics that they declare
(`Op.statistics`): what an approximation needs to know of its argument.
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

Tensors = Mapping[str, torch.Tensor]
Range = tuple[float, float]


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
    names = {n.name for n in graph}
    with torch.no_grad():
        for done, sample in enumerate(samples):
            values = run_graph(graph, dict(sample), tensors, keep=names)
            for node in graph.nodes:
                if node.op not in ("param", "constant") and values[node.name].numel():
                    ranges[node.name] = _wider(ranges.get(node.name), _range(node, values[node.name]))
                    _measure(node, values, stats.setdefault(node.name, {}))
            progress(done + 1)
    return graph.with_nodes([_annotated(n, ranges, stats) for n in graph.nodes])


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
