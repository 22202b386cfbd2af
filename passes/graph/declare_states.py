"""What a model of several steps takes from the step before, and gives to the next, stays in shares.

Given, with key_3 among the states              Result
    place = input              [1]                  place = input
    key_3 = input    [1, 4, 64, 16]                 key_3 = state {state="key_3", dim=2, entries=64, bound=32.0}
    k = linear(...)   [1, 4, 1, 16]                 k = linear(...)
    return "logits" = y, "key_3" = k                kept = keep(k, place) {state="key_3", ...}
                                                    return "logits" = y, "key_3" = kept

An input and an output of the same name as a state are both it. The position at which a step keeps is an input, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.types import Attr, attributes


@dataclass(frozen=True)
class Kept:
    """A state: dimension `dim` of it grows to `entries`; `bound` is the largest magnitude it is made for."""

    dim: int
    entries: int
    bound: float

    def attrs(self, name: str) -> dict[str, Attr]:
        return {"state": name, "dim": self.dim, "entries": self.entries, "bound": self.bound}


def declare_states(graph: Graph, states: Mapping[str, Kept], place: str) -> Graph:
    """Make states of the inputs and outputs of their names; `place` is the input that says where a step keeps.

    Raises:
        InternalError: there is no input `place`, or a state is neither an input nor an output.
    """
    if not states:
        return graph
    known = {node.name for node in graph if node.op == "input"} | {name for name, _ in graph.outputs}
    if missing := sorted({place, *states} - known):
        raise InternalError(f"the model has nothing of the name {missing[0]}")
    builder = GraphBuilder(node.name for node in graph)
    for node in graph:
        if node.op == "input" and node.name in states:
            node = replace(node, op="state", attrs=attributes(**states[node.name].attrs(node.name)))
        builder.keep(node)
    outputs = [
        (name, builder.emit(f"{name}_kept", "keep", [source, place], states[name].attrs(name)))
        if name in states
        else (name, source)
        for name, source in graph.outputs
    ]
    return builder.graph(outputs)
