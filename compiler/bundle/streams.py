"""Weights and inputs as the ring elements that the parties feed to a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.bundle.manifest import Placed, end_of
from mpcc.compiler.fixed import encode
from mpcc.compiler.ring.ir import RingGraph

Int64 = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]


def stream(placed: Sequence[Placed], arrays: Arrays) -> Int64:
    """Weights as one stream of ring elements, in the program's order.

    Raises:
        InputError, RangeError: a weight is not finite, or does not fit.
    """
    result = np.zeros(end_of(placed), np.int64)
    for p in placed:
        result[p.position : p.position + p.elements] = encode(arrays[p.tensor], p.frac_bits).reshape(-1)
    return result


def encoded(placed: Iterable[Placed], arrays: Arrays) -> dict[str, Int64]:
    """Weights as ring elements, by name. InputError and RangeError as `stream`."""
    return {p.tensor: encode(arrays[p.tensor], p.frac_bits) for p in placed}


def shared_inputs(ring: RingGraph, values: Arrays) -> tuple[dict[str, Int64], tuple[str, ...]]:
    """What the client shares as ring elements, and a warning for each value that leaves the calibrated range.

    Raises:
        InputError, RangeError: a value is not finite, or does not fit.
    """
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


def in_order(names: Iterable[str], shared: Mapping[str, Int64]) -> Int64:
    """The client's stream: what it shares, in the order of `Manifest.client_order`."""
    parts = [shared[name].reshape(-1) for name in names]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
