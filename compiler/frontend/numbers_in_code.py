"""Numbers that stand in the code of a model become attributes of operations: everybody can read and so must see them.

A scale like LoRA's alpha / r, a temperature that is a Python number, an epsilon: no evidence can make them private,
since they are part of the program's text. Infinity, which masks are filled with, tells nothing and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mpcc.compiler.findings import PublicNumber
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.types import Attr

if TYPE_CHECKING:
    import torch

# attributes that say where elements are, not what they are
_LAYOUT = frozenset({"shape", "size", "dims", "dim", "start", "stop", "end", "step", "classes", "block", "diagonal"})
_OTHER = frozenset({"tensor", "dtype"})  # names


def numbers_in_code(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> tuple[PublicNumber, ...]:
    """The numbers of a captured graph, and of its constants that are one number, in the order of their first use."""
    found: dict[tuple[str, str, str, str, float], int] = {}
    for node in graph:
        layer = ".".join("*" if p.isdigit() else p for p in node.origin.layer.split("."))
        for attribute, value in _numbers(node, tensors):
            if math.isfinite(value):
                key = (layer, node.origin.source, node.op, attribute, value)
                found[key] = found.get(key, 0) + 1
    return tuple(PublicNumber(*key, times) for key, times in found.items())


def _numbers(node: Node, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, float]]:
    if node.op == "constant":
        tensor = tensors[str(node.attr("tensor"))]
        if tensor.dim() == 0:
            yield "value", float(tensor)
    for attribute, value in node.attrs:
        if attribute not in _LAYOUT | _OTHER:
            for number in _flat(value):
                yield attribute, float(number)


def _flat(value: Attr) -> Iterator[int | float]:
    if isinstance(value, tuple):
        if value[:1] == ("tensor",):  # a reference to an operand
            return
        for entry in value:
            yield from _flat(entry)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
