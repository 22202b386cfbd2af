"""A value that nobody declared as output is never revealed: all other results of the model go, and what is left may be
made less.

Given                                         Result, for "logits"
    return "logits" = y, "pooled" = p             return "logits" = y
and p is no longer computed, unless y needs it.

Result, for "label"                           Result, for "logits" with 3 fractional bits
    l = argmax(y)                                 r = round_nearest(y) {frac_bits=3}
    return "label" = l                            return "logits" = r
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mpcc.compiler.errors import MpccError
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import FLOATS
from mpcc.compiler.types import LABEL, LOGITS, Attr, attributes

ARGMAX, ROUND = "argmax", "round_nearest"
TELLS_LESS = frozenset({ARGMAX, ROUND})  # operations that this pass puts behind a result of the model
OUTPUTS = (LOGITS, LABEL, "all")  # what may be asked for

Named = tuple[str, str]  # output, node


def choose_outputs(graph: Graph, output: str, frac_bits: int | None = None) -> Graph:
    """Keep the declared outputs: the model's logits, with "all" every result, with "label" no result but the position
    of the largest logit of each row. With `frac_bits`, real ones are rounded to so many fractional bits.

    Raises:
        MpccError: there are no logits of which one could be the largest.
    """
    chosen = graph.outputs if output == "all" else (main_output(graph.outputs),)
    if output == LABEL:
        return _with_label(graph, chosen[0])
    if frac_bits is None:
        return graph if output == "all" else without_dead_nodes(Graph(graph.nodes, chosen))
    nodes, outputs = list(graph.nodes), []
    for name, source in chosen:
        if graph[source].type.dtype in FLOATS:
            nodes.append(_after(graph, source, ROUND, f"{name}.rounded", frac_bits=frac_bits))
            source = nodes[-1].name
        outputs.append((name, source))
    return without_dead_nodes(Graph(tuple(nodes), tuple(outputs)))


def main_output(outputs: Sequence[Named]) -> Named:
    """The logits among a model's results; without any, the first result."""
    return next((o for o in outputs if o[0] == LOGITS), outputs[0])


def _with_label(graph: Graph, logits: Named) -> Graph:
    name, source = logits
    type = graph[source].type
    if type.dtype not in FLOATS or not type.shape or type.shape[-1] < 2:
        classes = type.shape[-1] if type.shape else 1
        raise MpccError(
            f"the model's {name} have {classes} value a row: there is no largest one to tell"
            if type.dtype in FLOATS
            else f"the model's {name} are no logits but {type.dtype}",
            todo="leave out --output label, or compile a model that tells classes apart",
        )
    node = _after(graph, source, ARGMAX, LABEL)
    return without_dead_nodes(Graph((*graph.nodes, node), ((LABEL, node.name),)))


def _after(graph: Graph, source: str, op: str, name: str, **attrs: Attr) -> Node:
    """A node that reads `source`, with a name of its own."""
    while name in graph:
        name += "_"
    before = graph[source]
    type = REGISTRY[op].type([before.type], attrs)
    return replace(before, name=name, op=op, inputs=(source,), attrs=attributes(**attrs), type=type, body=None)
