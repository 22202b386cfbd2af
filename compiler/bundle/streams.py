"""Tensors as the ring elements that the parties feed to a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.compiler.bundle.manifest import Placed
from mpcc.compiler.fixed import encode
from mpcc.compiler.ring.ir import RingGraph

Int64 = NDArray[np.int64]


def shared_inputs(ring: RingGraph, values: Mapping[str, torch.Tensor]) -> tuple[dict[str, Int64], tuple[str, ...]]:
    """The client's tensors as ring elements, and a warning for each that leaves the calibrated range."""
    result: dict[str, Int64] = {}
    notes: list[str] = []
    for node in ring:
        if node.op != "input":
            continue
        name = node.str_attr("name")
        value = values[name].detach().to(torch.float64).numpy()
        result[name] = encode(value, node.type.frac_bits)
        if value.size and (largest := float(np.abs(value).max())) > node.type.bound:
            times = largest / node.type.bound
            notes.append(f"{name} is {times:.1f} times the largest value the program was calibrated for: expect errors")
    return result, tuple(notes)


def encoded(placed: Iterable[Placed], tensors: Mapping[str, torch.Tensor]) -> dict[str, Int64]:
    """Weights as ring elements, by name."""
    return {p.tensor: encode(tensors[p.tensor].detach().numpy(), p.frac_bits) for p in placed}


def stream(placed: Sequence[Placed], tensors: Mapping[str, torch.Tensor]) -> Int64:
    """Weights as one stream of ring elements, in the program's order."""
    result = np.zeros(max((p.position + p.elements for p in placed), default=0), np.int64)
    for p in placed:
        result[p.position : p.position + p.elements] = encode(tensors[p.tensor].detach().numpy(), p.frac_bits).reshape(
            -1
        )
    return result
