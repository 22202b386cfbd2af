"""The verifier of the graph IR: runs after every pass, and on graphs that were read from a bundle.

Three tables say it all: RULES what holds of each operation wherever it stands, STAGES which facts must be there when,
FACTS what each fact means. A violation is an InternalError that names the pass, the node, its layer and source line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.graph.visibility import meet
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import DTYPES, SITES, VISIBILITIES, Attr, TensorType

# What every node must have at a stage, and so after every pass that leaves a graph in it.
STAGES: Mapping[str, tuple[str, ...]] = {
    "captured": ("not rolled",),
    "labelled": ("not rolled", "labels"),
    "prepared": ("not rolled", "labels", "prepared"),
    "ranged": ("not rolled", "labels", "prepared", "range", "statistics"),
    "cut": ("not rolled", "labels", "in mpc", "range", "statistics"),
    "rolled": ("labels", "in mpc", "range", "statistics", "members"),
}
_CUT = frozenset({"cut", "rolled"})


class Violation(Exception):
    """What is wrong with one node; `verify` adds where."""


@dataclass(frozen=True)
class Scope:
    """Where a node stands: `known` are the nodes before it; in a loop body `loop` is the repeat, `outer` its inputs."""

    stage: str
    calibrated: bool
    known: dict[str, Node] = field(default_factory=dict)
    loop: Node | None = None
    outer: tuple[TensorType, ...] = ()

    def types(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.known[name].type for name in node.inputs)


def verify(graph: Graph, stage: str, *, after: str = "", calibrated: bool | None = None) -> None:
    """Check every node against the tables.

    Args:
        stage: one of STAGES.
        after: the pass that made the graph, for the message.
        calibrated: whether ranges must be there once the stage has them; None: if any node has one, all must.

    Raises:
        InternalError: at the first violation.
    """
    if stage not in STAGES:
        raise InternalError(f"there is no stage {stage!r} of a graph")
    if calibrated is None:
        calibrated = any(node.range is not None for node in graph)
    try:
        _verify_graph(graph, Scope(stage, calibrated), "")
    except Violation as violation:
        raise InternalError(f"after {after}: {violation}" if after else str(violation)) from None


def _verify_graph(graph: Graph, scope: Scope, prefix: str) -> None:
    for index, node in enumerate(graph.nodes):
        try:
            _verify_node(node, scope)
        except Violation as violation:
            layer, source = node.origin.layer or "the model itself", node.origin.source or "no source line"
            where = f"graph node {prefix}{index}: {node.name} = {node.op} at {layer} ({source})"
            raise Violation(f"{where}: {violation}") from None
        scope.known[node.name] = node
        if node.body is not None:
            inside = Scope(scope.stage, scope.calibrated, {}, node, scope.types(node))
            _verify_graph(node.body, inside, f"{prefix}{index}.")
    names = [name for name, _ in graph.outputs]
    for name, node_name in graph.outputs:
        _require(node_name in scope.known, f"output {name!r} reads {node_name}, which does not exist")
        _require(names.count(name) == 1, f"there are two outputs {name!r}")


def _verify_node(node: Node, scope: Scope) -> None:
    _require(bool(node.name) and node.name not in scope.known, "has no name, or that of a node before it")
    for name in node.inputs:
        _require(name in scope.known, f"operand {name} is not defined before its use")
    keys = [key for key, _ in node.attrs]
    _require(keys == sorted(set(keys)), "attributes are not in order, or one is given twice")
    _require(node.type.dtype in DTYPES, f"there is no element type {node.type.dtype!r}")
    _require((node.body is not None) == (node.op == "repeat"), "a repeat, and nothing else, has a body")
    for source in node.inputs:
        reads_loop = scope.known[source].op == "repeat"
        _require(not reads_loop or node.op == "take", f"reads the loop {source} other than by take")
    _require(node.op in RULES or node.op in REGISTRY, "unknown operation")
    type = RULES[node.op](node, scope) if node.op in RULES else _rule_of(node, scope)
    _require(node.type == type, f"its type is {node.type}, its rule gives {type}")
    for fact in STAGES[scope.stage]:
        FACTS[fact](node, scope)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


# ** operations **
def _rule_of(node: Node, scope: Scope) -> TensorType:
    try:
        return _declared_type(node.op, scope.types(node), node.attrs, repr(node.attrs))
    except InternalError as error:
        raise Violation(str(error)) from None
    except Exception as error:  # ill-typed attributes: rules of operations need not expect every value
        raise Violation(f"its rule fails: {str(error).partition(chr(10))[0]}") from None


@lru_cache(maxsize=4096)
def _declared_type(op: str, inputs: tuple[TensorType, ...], attrs: tuple[tuple[str, Attr], ...], _: str) -> TensorType:
    """By the operation's declaration; the text of the attributes tells 1 from 1.0 and True in the cache."""
    return REGISTRY[op].type(inputs, dict(attrs))


def _leaf(node: Node, attrs: set[str]) -> TensorType:
    _require(not node.inputs, "a leaf has no operands")
    found = {key for key, _ in node.attrs}
    _require(found == attrs, f"has the attributes {sorted(found)}, not {sorted(attrs)}")
    return node.type


def _input(node: Node, scope: Scope) -> TensorType:
    _require(scope.loop is None, "an input stands outside loops")
    _require(node.attr("role") in ("client", "public"), f"there is no role {node.attr('role')!r}")
    _require(isinstance(node.attr("whole", False), bool), "whole must be true or false")
    return _leaf(node, {"role", "whole"} if scope.stage in _CUT else {"role"})


def _tensor(node: Node, scope: Scope) -> TensorType:
    name = node.attr("tensor")
    _require(isinstance(name, str) and bool(name), "names no tensor")
    return _leaf(node, {"tensor"})


def _state(node: Node, scope: Scope) -> TensorType:
    _require(scope.loop is None, "a state outside a loop is read, not in it")
    dim, entries, bound = _integer(node, "dim"), _integer(node, "entries"), node.attr("bound")
    _require(isinstance(node.attr("state"), str) and bool(node.attr("state")), "names no state")
    _require(isinstance(bound, float) and 0 < bound < math.inf, "its bound is no magnitude")
    fits = 0 <= dim < len(node.type.shape) and node.type.shape[dim] <= entries
    _require(fits, f"{node.type} is no part of {entries} entries along dimension {dim}")
    return _leaf(node, {"bound", "dim", "entries", "state"})


def _argument(node: Node, scope: Scope) -> TensorType:
    if scope.loop is None:
        raise Violation("a loop argument outside a loop")
    count, carried, invariants = (_integer(scope.loop, key) for key in ("count", "carried", "invariants"))
    start = {"carried": 0, "invariant": carried, "stacked": carried + invariants}
    kind, index = str(node.attr("kind")), _integer(node, "index")
    _require(kind in start, f"there is no kind {kind!r} of argument")
    held = {"carried": carried, "invariant": invariants}.get(kind, (len(scope.outer) - start["stacked"]) // count)
    _require(0 <= index < held, f"there is no {kind} argument {index}")
    _leaf(node, {"index", "kind"})
    first, width = (start[kind] + index * count, count) if kind == "stacked" else (start[kind] + index, 1)
    types = set(scope.outer[first : first + width])
    _require(len(types) == 1, "its values differ in type between iterations")
    return types.pop()


def _repeat(node: Node, scope: Scope) -> TensorType:
    count, carried, invariants = (_integer(node, key) for key in ("count", "carried", "invariants"))
    _require([key for key, _ in node.attrs] == ["carried", "count", "invariants"], "has other attributes than a repeat")
    _require(count >= 1 and carried >= 1 and invariants >= 0, "runs no iteration, or carries nothing")
    stacked = len(node.inputs) - carried - invariants
    _require(stacked >= 0 and stacked % count == 0, f"{len(node.inputs)} operands do not fit {count} iterations")
    if node.body is None:
        raise Violation("has no body")
    results = node.body.outputs
    _require(len(results) == carried, f"its body returns {len(results)} values, {carried} are carried")
    for (_, name), initial in zip(results, node.inputs, strict=False):
        _require(name in node.body, f"its body returns {name}, which does not exist")
        before, after = scope.known[initial].type, node.body[name].type
        _require(before == after, f"the carried {name} enters as {before} and leaves as {after}")
    return scope.known[node.inputs[0]].type


def _take(node: Node, scope: Scope) -> TensorType:
    _require(len(node.inputs) == 1 and [key for key, _ in node.attrs] == ["index"], "takes one result of one loop")
    loop, index = scope.known[node.inputs[0]], _integer(node, "index")
    if loop.body is None:
        raise Violation(f"{loop.name} is {loop.op}, not a loop")
    _require(0 <= index < len(loop.body.outputs), f"the loop carries no value {index}")
    return loop.body[loop.body.outputs[index][1]].type


def _integer(node: Node, key: str) -> int:
    value = node.attr(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Violation(f"{key} must be a whole number")
    return value


# The type of what is no operation of the registry.
RULES: Mapping[str, Callable[[Node, Scope], TensorType]] = {
    "input": _input,
    "param": _tensor,
    "state": _state,
    "constant": _tensor,
    "arg": _argument,
    "repeat": _repeat,
    "take": _take,
}


# ** facts **
def _not_rolled(node: Node, scope: Scope) -> None:
    _require(node.op not in ("repeat", "take", "arg"), "loops are made by the last pass only")


def _labels(node: Node, scope: Scope) -> None:
    _require(node.visibility in VISIBILITIES, f"its visibility is {node.visibility!r}")
    _require(node.site in SITES, f"its site is {node.site!r}")
    if node.op == "input":
        _require(node.visibility in ("client", "public"), f"an input that is {node.visibility}")
    elif node.op == "state":
        _require(node.visibility == "secret", f"a state that is {node.visibility}")
    elif node.op in ("param", "constant"):
        known = ("public",) if node.op == "constant" else ("public", "provider")
        _require(node.visibility in known, f"a {node.op} that is {node.visibility}")
    elif node.op not in RULES:
        wanted = meet([scope.known[name].visibility for name in node.inputs])
        _require(node.visibility == wanted, f"it is {node.visibility}, what it reads makes it {wanted}")
    if node.site in ("client", "provider"):
        readers = VISIBILITIES[node.visibility]
        _require(node.site in readers, f"the {node.site} computes it and may not read it ({node.visibility})")
    _require(node.site != "compile" or node.visibility == "public", f"it is {node.visibility} when compiled")


def _prepared(node: Node, scope: Scope) -> None:
    """The provider has computed what is its own; only what is free inside MPC may be left for there."""
    free = node.is_leaf or node.op not in REGISTRY or REGISTRY[node.op].keeps_numbers
    _require(node.site != "provider" or free, "the provider has yet to compute it")


def _in_mpc(node: Node, scope: Scope) -> None:
    _require(node.is_leaf or node.site == "mpc", f"is computed by the {node.site}, not in MPC")


def _range(node: Node, scope: Scope) -> None:
    if node.range is not None:
        low, high = node.range
        _require(low <= high, f"its range [{low}, {high}] is none")  # false of nan, too
    elif scope.calibrated and node.type.elements and node.op not in ("param", "constant", "arg", "repeat"):
        raise Violation("it has lost its range")


def _statistics(node: Node, scope: Scope) -> None:
    declared = REGISTRY[node.op].statistics if node.op in REGISTRY else ()
    if declared and node.site == "mpc" and node.range is not None:
        lost = set(declared) - {key for key, _ in node.stats}
        _require(not lost, f"it has lost its statistics {', '.join(sorted(lost))}")


def _members(node: Node, scope: Scope) -> None:
    if scope.loop is not None and node.op not in RULES:
        count = _integer(scope.loop, "count")
        _require(len(node.members) == count, f"names {len(node.members)} nodes of {count} iterations")


FACTS: Mapping[str, Callable[[Node, Scope], None]] = {
    "not rolled": _not_rolled,
    "labels": _labels,  # who may read it follows from what it reads; where it is computed, somebody may read it
    "prepared": _prepared,  # what needs no input is a parameter
    "in mpc": _in_mpc,
    "range": _range,  # lowest and highest value, where the program was calibrated
    "statistics": _statistics,  # those that the operation declares
    "members": _members,  # inside a loop, the node of every iteration
}
