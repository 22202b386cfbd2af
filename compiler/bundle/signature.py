"""What a captured graph and its model's config tell about a program's inputs and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpcc.compiler.bundle.manifest import IDS_INPUT, InputSpec
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ops import KEEPS_NUMBERS
from mpcc.compiler.types import printable


def input_specs(
    graph: Graph, config: Mapping[str, object] | None, public_inputs: Iterable[str] = ()
) -> tuple[InputSpec, ...]:
    """The inputs of a captured model, with the limits that its look-up tables imply."""
    public = set(public_inputs)
    limits = _limits(graph)
    pad = (config or {}).get("pad_token_id")
    padding = pad if isinstance(pad, int) and pad >= 0 else 0
    return tuple(
        InputSpec(
            n.name,
            n.type.shape,
            n.type.dtype,
            "public" if n.name in public else "client",
            limits.get(n.name),
            padding if n.name == IDS_INPUT else 0,
        )
        for n in graph
        if n.op == "input"
    )


def _limits(graph: Graph) -> dict[str, int]:
    """Input -> largest id that is a row of every table it is looked up in."""
    result: dict[str, int] = {}
    for node in graph:
        if node.op != "embedding":
            continue
        highest = graph[node.inputs[0]].type.shape[0] - 1
        for name in _sources(graph, node.inputs[1]):
            result[name] = min(highest, result.get(name, highest))
    return result


def _sources(graph: Graph, name: str) -> list[str]:
    """The inputs whose elements arrive at `name` unchanged."""
    node = graph[name]
    if node.op == "input":
        return [name]
    return [s for i in node.inputs for s in _sources(graph, i)] if node.op in KEEPS_NUMBERS else []


def labels_in(config: Mapping[str, object] | None) -> dict[int, str]:
    """id -> label from the model's config; empty without one."""
    table = (config or {}).get("id2label")
    if not isinstance(table, Mapping):
        return {}
    return {int(k): _shown(str(v)) for k, v in table.items() if str(k).isdecimal() and str(k).isascii()}


def _shown(label: str) -> str:
    """Without the characters that a manifest may not hold."""
    return "".join(c if printable(c) else " " for c in label)
