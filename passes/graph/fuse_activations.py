"""Recognise GELU and SiLU that are written out, in whatever way.

Given                                               Result
    %h = scale(%x) {factor=0.5}                         %y = gelu(%x) {approximate="tanh"}
    %q = square(%x)
    %c = mul(%q, %x)
    %d = scale(%c) {factor=0.044715}
    %u = add(%x, %d)
    %v = scale(%u) {factor=0.7978845608}
    %t = tanh(%v)
    %e = shift(%t) {offset=1.0}
    %y = mul(%h, %e)

Libraries write these functions in many ways, so what counts is not how: operations on one value, element by element,
that hold a tanh, erf, exp or sigmoid are computed on a grid and compared with the known functions. x sigmoid(c x), of
which quick-GELU is one, is silu(c x) / c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import FLOATS
from mpcc.passes.graph.rewriting import Rewriter, rewrite

_TRANSCENDENTAL = frozenset({"tanh", "sigmoid", "exp", "aten.erf.default"})
_ELEMENTWISE = _TRANSCENDENTAL | {"add", "sub", "mul", "div", "scale", "shift", "square", "reciprocal"}
_ENDS = ("mul", "scale", "div")  # the last operation of every way to write these functions
_LARGEST = 16  # operations of the longest way
_GRID = torch.cat([torch.linspace(-30, 30, 601), torch.linspace(-6, 6, 601), torch.ones(1)]).double()
_ONE = -1  # where the grid holds 1
_NEARLY = 1e-6  # constants are written with eight digits or more


def fuse_activations(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> Graph:
    """Fuse the activations of a graph without loops. Reads only constants."""
    return without_dead_nodes(rewrite(graph, tensors, dict.fromkeys(_ENDS, (_activation,))))


def _activation(rw: Rewriter, node: Node) -> str | None:
    if node.type.dtype not in FLOATS:
        return None
    cone = _cone(rw, node)
    if not any(inner.op in _TRANSCENDENTAL for inner in cone):
        return None
    for x in dict.fromkeys(name for inner in (node, *cone) for name in inner.inputs):
        if rw.type(x) == node.type and rw.uniform(x) is None:
            values = _values(rw, node, {x: _GRID})
            made = None if values is None else _known(rw, x, values)
            if made is not None:
                return made
    return None


def _cone(rw: Rewriter, node: Node) -> list[Node]:
    """The operations on single elements that lead to `node`."""
    cone: dict[str, Node] = {}
    waiting = list(node.inputs)
    while waiting and len(cone) < _LARGEST:
        found = rw.nodes[waiting.pop(0)]
        if found.op in _ELEMENTWISE and found.name not in cone:
            cone[found.name] = found
            waiting += found.inputs
    return list(cone.values())


def _values(rw: Rewriter, node: Node, known: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """`node` over the grid; None if it reads anything but what is known and constants that hold one number."""
    if node.op not in _ELEMENTWISE:
        return None
    inputs = []
    for name in node.inputs:
        number = rw.uniform(name)
        value = known.get(name) if number is None else torch.full_like(_GRID, number)
        value = _values(rw, rw.nodes[name], known) if value is None else value
        if value is None:
            return None
        known[name] = value
        inputs.append(value)
    return REGISTRY[node.op].reference(inputs, dict(node.attrs))


def _known(rw: Rewriter, x: str, values: torch.Tensor) -> str | None:
    """The operation that has these values over the grid, applied to x."""
    for form in ("none", "tanh"):
        if _equal(values, functional.gelu(_GRID, approximate=form)):
            return rw.emit("gelu", [x], approximate=form)
    share = float(values[_ONE])  # sigmoid(c)
    if not 0 < share < 1:
        return None
    factor = float(f"{math.log(share / (1 - share)):.9g}")  # as it was written, without rounding errors
    if factor == 0 or not _equal(values, _GRID * torch.sigmoid(factor * _GRID)):
        return None
    if abs(factor - 1) < _NEARLY:
        return rw.emit("silu", [x])
    inner = rw.emit_beside("argument", "scale", [x], factor=factor)
    silu = rw.emit_beside("silu", "silu", [inner])
    return rw.emit("scale", [silu], factor=1.0 / factor)


def _equal(values: torch.Tensor, others: torch.Tensor) -> bool:
    return bool(((values - others).abs() <= _NEARLY * _GRID.abs().clamp_min(1.0)).all())
