"""The states of ring programs: shares that stay in a session from one request to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.ir import RingGraph, RingNode


@dataclass(frozen=True)
class State:
    """`rows` rows of the shape `row`, at a scale."""

    name: str
    rows: int
    row: tuple[int, ...]
    frac_bits: int

    @property
    def row_elements(self) -> int:
        return math.prod(self.row)

    @property
    def elements(self) -> int:
        return self.rows * self.row_elements


def states_of(*graphs: RingGraph) -> dict[str, State]:
    """The states that programs of one session load and store, by name.

    Raises:
        InternalError: two nodes take a state for something else, or what is stored may exceed what is loaded.
    """
    found: dict[str, State] = {}
    nodes = [n for graph in graphs for n in graph if n.op in ("load_state", "store_state")]
    for node in nodes:
        name = node.str_attr("state")
        state = State(name, node.int_attr("rows"), node.type.shape[1:], node.type.frac_bits)
        if found.setdefault(name, state) != state:
            raise InternalError(f"{node.name}: the state {name} is {found[name]} elsewhere, and {state} here")
    stored = _bounds(nodes, "store_state", max)
    loaded = _bounds(nodes, "load_state", min)
    for name in stored.keys() & loaded.keys():
        if stored[name] > loaded[name] * (1 + 1e-9):
            raise InternalError(f"the state {name} keeps up to {stored[name]:g}, and is read as up to {loaded[name]:g}")
    return found


def _bounds(nodes: Iterable[RingNode], op: str, worst: Callable[[float, float], float]) -> dict[str, float]:
    result: dict[str, float] = {}
    for node in nodes:
        if node.op == op:
            name = node.str_attr("state")
            result[name] = worst(result.get(name, node.type.bound), node.type.bound)
    return result
