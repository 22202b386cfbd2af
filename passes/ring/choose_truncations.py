"""Give every truncation the cheapest variant that a failure budget allows.

In replicated three-party sharing a local truncation (ABY3) costs 8 bytes and one round, a safe one 32 bytes and two.
A local one of x fails, by an error of 2^(64 - bits), with probability |x| / 2^64, whatever the bits (measured; the sum
over elements is what counts, so the mean magnitude decides). Truncations become local in order of rising magnitude,
that is of least failure per byte saved, wherever the sum over all of them stays within the budget.

Given                                     Result
    y = trunc(x) {bits=16, safe}              y = trunc(x) {bits=16, local, width=48}
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from mpcc.compiler.protocols import LOCAL_WIDTH
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.types import attributes

MAGNITUDE_MARGIN = 1.5  # other inputs may be larger on average than the calibration inputs


@dataclass(frozen=True)
class Choice:
    """What was chosen: how many elements are truncated locally, of how many, and the failure probability they add.

    `local` are the truncations' names.
    """

    local_elements: int
    elements: int
    failure_probability: float
    local: frozenset[str] = frozenset()


def choose_truncations(graph: RingGraph, magnitudes: Mapping[str, float], budget: float) -> tuple[RingGraph, Choice]:
    """Turn safe truncations into local ones within `budget` (failure probability of one inference).

    `magnitudes`: mean |integer| of what each truncation (by node name) truncates, from an emulator profile; one that is
    missing is taken at its bound.
    """
    places = [(node, times) for node, times in graph.walk() if node.op == "trunc" and node.attr("variant") == "safe"]
    sources = _sources(graph)
    rated = sorted(
        ((_mean(node, sources[node.name], magnitudes), node, times) for node, times in places), key=lambda r: r[0]
    )
    spent, local = 0.0, set()
    for mean, node, times in rated:
        failure = _failure(node.type.elements * times, mean * MAGNITUDE_MARGIN, graph.ring_bits)
        if spent + failure <= budget and node.int_attr("bits") < LOCAL_WIDTH:
            spent += failure
            local.add(node.name)
    return apply_choice(graph, Choice(0, 0, spent, frozenset(local)))


def _failure(elements: int, magnitude: float, ring_bits: int) -> float:
    """At most how likely one of so many local truncations fails, where the mean |integer| is `magnitude`."""
    return elements * magnitude / 2.0**ring_bits


def local_elements(graph: RingGraph) -> int:
    """How many elements of one inference are truncated locally."""
    return sum(node.type.elements * times for node, times in graph.walk() if _is_local(node))


def failure_at_bounds(graph: RingGraph) -> float:
    """At most how likely a local truncation of one inference fails, if every value is as large as its bound says."""
    sources = _sources(graph)
    found = 0.0
    for node, times in graph.walk():
        if _is_local(node):
            source = sources[node.name].type
            largest = source.bound * 2.0**source.frac_bits
            found += _failure(node.type.elements * times, largest, graph.ring_bits)
    return min(found, 1.0)


def _is_local(node: RingNode) -> bool:
    return node.op == "trunc" and node.attr("variant") == "local"


def apply_choice(graph: RingGraph, choice: Choice) -> tuple[RingGraph, Choice]:
    """Make the truncations that were chosen local, in a graph that may have fewer of the others; count anew."""
    places = [(node, times) for node, times in graph.walk() if node.op == "trunc" and node.attr("variant") == "safe"]
    total = sum(node.type.elements * times for node, times in places)
    chosen = sum(node.type.elements * times for node, times in places if node.name in choice.local)
    return _with_local(graph, choice.local), replace(choice, local_elements=chosen, elements=total)


def _sources(graph: RingGraph) -> dict[str, RingNode]:
    """The operand of every truncation, bodies included."""
    result = {node.name: graph[node.inputs[0]] for node in graph if node.op == "trunc"}
    for node in graph:
        if node.body is not None:
            result |= _sources(node.body)
    return result


def _mean(node: RingNode, source: RingNode, magnitudes: Mapping[str, float]) -> float:
    return magnitudes.get(node.name, source.type.bound * 2.0**source.type.frac_bits / MAGNITUDE_MARGIN)


def _with_local(graph: RingGraph, local: Set[str]) -> RingGraph:
    nodes = []
    for node in graph:
        if node.body is not None:
            node = node.with_body(_with_local(node.body, local))
        if node.name in local:
            attrs = attributes(bits=node.int_attr("bits"), variant="local", width=LOCAL_WIDTH)
            node = replace(node, attrs=attrs)
        nodes.append(node)
    return graph.with_nodes(nodes)
