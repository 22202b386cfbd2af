"""Tensors as the ring elements that the parties feed to a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.fixed import encode
from mpcc.compiler.ring.ir import RingGraph

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import Placed

Int64 = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]


def shared_inputs(ring: RingGraph, values: Arrays) -> tuple[dict[str, Int64], tuple[str, ...]]:
    """The client's tensors as ring elements, and a warning for each that leaves the calibrated range."""
    result: dict[str, Int64] = {}
    notes: list[str] = []
    for node in ring:
        if node.op != "input":
            continue
        name = node.str_attr("name")
        value = np.asarray(values[name], np.float64)
        result[name] = encode(value, node.type.frac_bits)
        if value.size and (largest := float(np.abs(value).max())) > node.type.bound:
            times = largest / node.type.bound
            notes.append(f"{name} is {times:.1f} times the largest value the program was calibrated for: expect errors")
    return result, tuple(notes)


def encoded(placed: Iterable[Placed], tensors: Arrays) -> dict[str, Int64]:
    """Weights as ring elements, by name."""
    return {p.tensor: encode(np.asarray(tensors[p.tensor]), p.frac_bits) for p in placed}


def stream(placed: Sequence[Placed], tensors: Arrays) -> Int64:
    """Weights as one stream of ring elements, in the program's order."""
    result = np.zeros(max((p.position + p.elements for p in placed), default=0), np.int64)
    for p in placed:
        value = encode(np.asarray(tensors[p.tensor]), p.frac_bits)
        result[p.position : p.position + p.elements] = value.reshape(-1)
    return result
