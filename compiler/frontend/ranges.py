"""The ranges stage: calibration inputs through the float graph.

Every value's lowest and highest entry, and for operations whose approximation has a domain, statistics of what goes on
inside them:

    attention   score_abs (largest |scaled score|), spread (largest max - min of a row's kept scores),
                lse_min, lse_max (log of the sum of a row's e^score)
    softmax     spread
    layer_norm  variance_min, variance_max (per token; rms_norm: of the mean square)
    reciprocal, rsqrt, sqrt, exp, gelu   argument_min, argument_max
    div         the same of the divisor
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from mpcc.compiler.errors import RangeError
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node

Tensors = Mapping[str, torch.Tensor]
Statistics = dict[str, float]


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
    ranges: dict[str, tuple[float, float]] = {}
    stats: dict[str, Statistics] = {}
    names = {n.name for n in graph}
    with torch.no_grad():
        for done, sample in enumerate(samples):
            values = run_graph(graph, dict(sample), tensors, keep=names)
            for node in graph.nodes:
                if node.op not in ("param", "constant"):
                    _observe(node, values, ranges, stats)
            progress(done + 1)
    return graph.with_nodes([_annotated(n, ranges, stats) for n in graph.nodes])


def _annotated(node: Node, ranges: dict[str, tuple[float, float]], stats: dict[str, Statistics]) -> Node:
    return replace(node, range=ranges.get(node.name), stats=tuple(sorted(stats.get(node.name, {}).items())))


def _observe(node: Node, values: Tensors, ranges: dict[str, tuple[float, float]], stats: dict[str, Statistics]) -> None:
    value = values[node.name]
    if value.numel() == 0:
        return
    low, high = (float(v) for v in torch.aminmax(value.to(torch.float32)))
    if node.site == "mpc" and not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise RangeError(
            f"{node.op} gives a value that is not finite on the calibration inputs",
            where=node.origin.layer or node.name,
            todo="remove inputs whose attention mask is all zero",
        )
    if node.name in ranges:
        low, high = min(low, ranges[node.name][0]), max(high, ranges[node.name][1])
    ranges[node.name] = (low, high)
    observer = _OBSERVERS.get(node.op)
    if observer is None or node.site != "mpc":
        return
    seen = stats.setdefault(node.name, {})
    for key, number in observer(node, [values[i] for i in node.inputs]).items():
        pick = min if key.endswith("_min") else max
        seen[key] = pick(seen[key], number) if key in seen else number


def _of_attention(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    scale = float(node.attr("scale"))  # type: ignore[arg-type]
    scores = torch.matmul(inputs[0], inputs[1].transpose(-1, -2)) * scale
    mask = str(node.attr("mask", "none"))
    if mask == "key":
        keep = inputs[3].bool().reshape(inputs[3].shape[0], *(1,) * (scores.dim() - 2), inputs[3].shape[-1])
        return _of_scores(scores, keep.expand(scores.shape))
    return _of_scores(scores, torch.ones_like(scores, dtype=torch.bool))


def _of_scores(scores: torch.Tensor, keep: torch.Tensor) -> Statistics:
    infinity = float("inf")
    high = scores.masked_fill(~keep, -infinity).amax(-1)
    low = scores.masked_fill(~keep, infinity).amin(-1)
    sums = torch.logsumexp(scores.masked_fill(~keep, -infinity), -1)
    return {
        "score_abs": float(scores[keep].abs().max()),
        "spread": float((high - low).max()),
        "lse_min": float(sums.min()),
        "lse_max": float(sums.max()),
    }


def _of_softmax(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    dim = int(node.attr("dim"))  # type: ignore[arg-type]
    return {"spread": float((inputs[0].amax(dim) - inputs[0].amin(dim)).max())}


def _of_layer_norm(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    low, high = torch.aminmax(inputs[0].var(-1, unbiased=False))
    return {"variance_min": float(low), "variance_max": float(high)}


def _of_rms_norm(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    low, high = torch.aminmax(inputs[0].square().mean(-1))
    return {"variance_min": float(low), "variance_max": float(high)}


def _of_divisor(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    return _of_argument(node, inputs[1:])


def _of_argument(node: Node, inputs: Sequence[torch.Tensor]) -> Statistics:
    low, high = torch.aminmax(inputs[0])
    return {"argument_min": float(low), "argument_max": float(high)}


_OBSERVERS: dict[str, Callable[[Node, Sequence[torch.Tensor]], Statistics]] = {
    "attention": _of_attention,
    "softmax": _of_softmax,
    "layer_norm": _of_layer_norm,
    "rms_norm": _of_rms_norm,
    "reciprocal": _of_argument,
    "rsqrt": _of_argument,
    "sqrt": _of_argument,
    "exp": _of_argument,
    "gelu": _of_argument,
    "div": _of_divisor,
}
