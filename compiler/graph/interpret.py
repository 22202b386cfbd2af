"""Runs a graph in floating point with the reference of each operation."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import torch

from mpcc.compiler.errors import InputError, InternalError, MpccError
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import TO_TORCH

Store = Mapping[str, torch.Tensor]


def run_graph(
    graph: Graph,
    inputs: Store,
    tensors: Store,
    *,
    keep: Container[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Evaluate a graph.

    Args:
        graph: what to evaluate.
        inputs: user inputs and states by the name of their node, of exactly the shape the graph names.
        tensors: params and constants by canonical name.
        keep: the nodes whose values are wanted; by default those the outputs name. Others are freed when last read.
            Values inside the body of a repeat are named `<repeat>.<iteration>.<node>` or, where the node has
            `members`, by the member of the iteration; they are kept only when asked for.
        dtype: the float type everything real is computed in.

    Returns:
        Node name -> value.

    Raises:
        InputError: an input is missing or does not have its shape or kind of element.
        InternalError: a node cannot be evaluated; the message names its layer.
    """
    wanted: Container[str] = {name for _, name in graph.outputs} if keep is None else keep
    kept: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        _run(graph, inputs, tensors, (), wanted, kept, "", dtype)
    return kept


def outputs_of(graph: Graph, values: Store) -> dict[str, torch.Tensor]:
    """The named results among the values `run_graph` returned."""
    return {name: values[node] for name, node in graph.outputs}


def _run(
    graph: Graph,
    inputs: Store,
    tensors: Store,
    arguments: Sequence[Mapping[int, torch.Tensor]],
    wanted: Container[str],
    kept: dict[str, torch.Tensor],
    prefix: str,
    dtype: torch.dtype,
    turn: int = 0,
) -> list[torch.Tensor]:
    """Evaluate; `arguments` are the carried, invariant and stacked values of a body. Returns the outputs in order."""
    last = {source: i for i, node in enumerate(graph.nodes) for source in node.inputs}
    last.update({name: len(graph.nodes) for _, name in graph.outputs})
    values: dict[str, torch.Tensor] = {}
    many: dict[str, list[torch.Tensor]] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "repeat":
            many[node.name] = _repeat(node, values, tensors, wanted, kept, prefix, dtype)
            value = many[node.name][0]
        elif node.op == "take":
            value = many[node.inputs[0]][_index(node)]
        elif node.is_leaf:
            value = _leaf(node, inputs, tensors, arguments, dtype)
        else:
            value = _evaluate(node, values, dtype)
        values[node.name] = value
        for name in (prefix + node.name, *node.members[turn : turn + 1]):
            if name in wanted:
                kept[name] = value
        for source in set(node.inputs):
            if last[source] == i:
                del values[source]
        if node.name not in last:
            del values[node.name]
    return [values[name] for _, name in graph.outputs]


def _evaluate(node: Node, values: Store, dtype: torch.dtype) -> torch.Tensor:
    op = REGISTRY.get(node.op)
    if op is None:
        raise InternalError(f"{_place(node)}: no operation of this name")
    try:
        value = op.reference([values[i] for i in node.inputs], dict(node.attrs))
    except MpccError:
        raise
    except Exception as error:
        raise InternalError(f"{_place(node)}: {str(error).splitlines()[0]}") from error
    if tuple(value.shape) != node.type.shape:
        raise InternalError(f"{_place(node)}: the result is {tuple(value.shape)}, not {node.type.shape}")
    return value.to(dtype) if value.is_floating_point() else value


def _leaf(
    node: Node, inputs: Store, tensors: Store, arguments: Sequence[Mapping[int, torch.Tensor]], dtype: torch.dtype
) -> torch.Tensor:
    if node.op in ("input", "state"):
        return _input(node, inputs, dtype)
    if node.op == "arg":
        kinds = ("carried", "invariant", "stacked")
        if not arguments or node.attr("kind") not in kinds:
            raise InternalError(f"{_place(node)}: an argument outside a repeat, or of no known kind")
        return arguments[kinds.index(str(node.attr("kind")))][_index(node)]
    name = str(node.attr("tensor"))
    if name not in tensors:
        raise InternalError(f"{_place(node)}: no tensor {name!r}")
    value = tensors[name]
    if tuple(value.shape) != node.type.shape:
        raise InternalError(f"{_place(node)}: tensor {name!r} is {tuple(value.shape)}, not {node.type.shape}")
    return value.to(dtype) if value.is_floating_point() else value


def _input(node: Node, inputs: Store, dtype: torch.dtype) -> torch.Tensor:
    if node.name not in inputs:
        raise InputError(f"no input {node.name!r} was given")
    value = inputs[node.name]
    if tuple(value.shape) != node.type.shape:
        raise InputError(f"input {node.name!r} has the shape {tuple(value.shape)}, the program takes {node.type.shape}")
    real = node.type.dtype in ("f32", "f64")
    if value.is_floating_point() != real:
        raise InputError(f"input {node.name!r} has elements of {value.dtype}, the program takes {node.type.dtype}")
    return value.to(dtype if real else TO_TORCH[node.type.dtype])


def _repeat(
    node: Node,
    values: Store,
    tensors: Store,
    wanted: Container[str],
    kept: dict[str, torch.Tensor],
    prefix: str,
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    count, body = node.attr("count"), node.body
    if not isinstance(count, int) or body is None:
        raise InternalError(f"{_place(node)}: a repeat without count or body")
    carried, invariant, stacked = split_repeat(node)
    state = [values[n] for n in carried]
    fixed = {i: values[n] for i, n in enumerate(invariant)}
    for turn in range(count):
        arguments = (dict(enumerate(state)), fixed, {j: values[names[turn]] for j, names in enumerate(stacked)})
        state = _run(body, {}, tensors, arguments, wanted, kept, f"{prefix}{node.name}.{turn}.", dtype, turn)
    return state


def split_repeat(node: Node) -> tuple[list[str], list[str], list[list[str]]]:
    """The inputs of a repeat: initial carried values, invariants, and per stacked argument one name per iteration."""
    count, body = node.attr("count"), node.body
    if not isinstance(count, int) or body is None:
        raise InternalError(f"{_place(node)}: a repeat without count or body")
    stacked = {_index(n) for n in body.nodes if n.op == "arg" and n.attr("kind") == "stacked"}
    carried, tail = len(body.outputs), (max(stacked) + 1 if stacked else 0) * count
    names = list(node.inputs)
    declared = (node.attr("carried", carried), node.attr("invariants", len(names) - carried - tail))
    if declared != (carried, len(names) - carried - tail) or carried + tail > len(names):
        raise InternalError(f"{_place(node)}: {len(names)} inputs do not fit its body")
    start = len(names) - tail
    return names[:carried], names[carried:start], [names[i : i + count] for i in range(start, len(names), count)]


def _index(node: Node) -> int:
    index = node.attr("index")
    if not isinstance(index, int):
        raise InternalError(f"{_place(node)}: index must be an integer")
    return index


def _place(node: Node) -> str:
    where = f" of layer {node.origin.layer}" if node.origin.layer else ""
    return f"{node.op} {node.name!r}{where}"
