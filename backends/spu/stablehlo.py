"""The MPC region of a graph as one StableHLO function with one visibility per argument."""

from __future__ import annotations

from collections.abc import Mapping

from mpcc.backends.spu.families import RULES
from mpcc.backends.spu.program import Input, Output, StableHlo
from mpcc.backends.spu.writer import Value, Writer, tensor_type
from mpcc.compiler.errors import UnsupportedError
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes


def emit_stablehlo(graph: Graph, largest_sums: Mapping[str, float] | None = None) -> StableHlo:
    """Write an MPC region whose leaves are inputs (client's or public), params and constants.

    Calibrated statistics, where nodes have them, and the `largest_sums` of norms (`norm_sums.largest_sums`) choose
    scales; without them the forms serve moderate values.

    Raises:
        UnsupportedError: an operation has no StableHLO form here; all of them are named.
    """
    live = without_dead_nodes(graph)
    unknown = sorted({n.op for n in live.operations() if n.op not in RULES})
    if unknown:
        raise UnsupportedError(f"the spu engine has no form of: {', '.join(unknown)}", todo="use another engine")
    writer = Writer(largest_sums)
    inputs: dict[str, Input] = {}  # by tensor: one that is read twice is one argument
    values: dict[str, Value] = {}
    for node in live:
        if node.is_leaf:
            leaf = _input(node)
            inputs.setdefault(leaf.tensor, leaf)
            values[node.name] = Value(f"%arg{list(inputs).index(leaf.tensor)}", node.type.shape)
        else:
            values[node.name] = RULES[node.op].write(writer, node, [values[i] for i in node.inputs])
    outputs = tuple(Output(name, live[node].type.shape) for name, node in live.outputs)
    results = [values[node] for _, node in live.outputs]
    steps = tuple(Input("", (), "public", secret=False, value=number) for number in writer.steps)
    return StableHlo(_module(writer, inputs, results), (*inputs.values(), *steps), outputs)


def _input(node: Node) -> Input:
    public = node.visibility == "public"
    if node.op == "input":
        return Input(node.name, node.type.shape, "client", secret=not public)
    return Input(str(node.attr("tensor")), node.type.shape, "public" if public else "provider", secret=not public)


def _module(writer: Writer, inputs: Mapping[str, Input], results: list[Value]) -> str:
    named = [(f"%arg{i}", leaf.shape) for i, leaf in enumerate(inputs.values())]
    named += [(name, ()) for name in writer.steps.values()]
    arguments = ", ".join(f"{name}: {tensor_type(shape)}" for name, shape in named)
    types = ", ".join(r.type for r in results)
    head = f"func.func public @main({arguments}) -> ({types}) {{"
    tail = f"return {', '.join(r.name for r in results)} : {types}"
    body = "".join(f"    {line}\n" for line in [*writer.lines, tail])
    return f"module {{\n  {head}\n{body}  }}\n}}\n"
