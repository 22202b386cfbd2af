"""The verifier of the ring IR: runs after every step that makes or changes a ring program.

Every node must have the operands and attributes of its operation, the type that the rule of the operation gives, and
stand where it may; compiler/ring/rules.py is the table. A violation is an InternalError with position, operation, name
and layer: breaking a rule is a bug.
"""

from __future__ import annotations

import math

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.ir import RingGraph, RingNode, RingType
from mpcc.compiler.ring.result_types import LAYOUTS, AttrKind, Scope, Violation, check_type
from mpcc.compiler.ring.rules import PRIMITIVES, attributes_of
from mpcc.compiler.ring.states import states_of


def verify(graph: RingGraph, *, final: bool = False, known: RingGraph | None = None) -> None:
    """Raise InternalError at the first violation; with `final`, no rescale may be left.

    `known` is a graph that has been verified: a node that stands in both (as the same object), on operands that do, is
    not looked at again. A pass changes few nodes, so verifying after every one of them costs little.
    """
    if known is not graph or final:
        _verify_graph(graph, Scope(graph.ring_bits, final), known)
        states_of(graph)


def _verify_graph(graph: RingGraph, scope: Scope, known: RingGraph | None) -> None:
    seen: dict[str, RingNode] = {}
    new: set[str] = set()  # what is another object than in `known`
    verified = known.by_name if known is not None and known.ring_bits == graph.ring_bits else {}
    for index, node in enumerate(graph.nodes):
        before = verified.get(node.name)
        if before is node and node.name not in seen and _as_before(node, scope, new):
            seen[node.name] = node
            if node.body is not None and scope.final:
                _verify_body(node, seen, scope, before)
            continue
        if before is not node:
            new.add(node.name)
        try:
            _verify_node(node, seen, scope)
        except (InternalError, ArithmeticError) as error:
            layer = node.origin.layer or "the model"
            raise InternalError(f"ring node {index}: {node.name} = {node.op} at {layer}: {error}") from None
        seen[node.name] = node
        if node.body is not None:
            _verify_body(node, seen, scope, before)
    _verify_outputs(graph, seen, scope)


def _as_before(node: RingNode, scope: Scope, new: set[str]) -> bool:
    """Whether a node that was verified needs no other look: nothing it depends on is new."""
    if not node.inputs:
        return scope.loop is None  # leaves of a body depend on the loop
    return new.isdisjoint(node.inputs) and not (scope.final and node.op == "rescale")


def _verify_body(node: RingNode, seen: dict[str, RingNode], scope: Scope, before: RingNode | None) -> None:
    assert node.body is not None
    operands = tuple(seen[name].type for name in node.inputs)
    inner = Scope(scope.ring_bits, scope.final, node, operands)
    _verify_graph(node.body, inner, before.body if before is not None else None)


def _verify_outputs(graph: RingGraph, seen: dict[str, RingNode], scope: Scope) -> None:
    for name, source in graph.outputs:
        if source not in seen:
            raise InternalError(f"output {name!r} reads {source}, which does not exist")
        if scope.loop is None and seen[source].op not in ("reveal", "store_state"):
            raise InternalError(f"output {name!r} is {source} = {seen[source].op}, but only a reveal may leave")


def _verify_node(node: RingNode, seen: dict[str, RingNode], scope: Scope) -> None:
    row = PRIMITIVES.get(node.op)
    if row is None:
        raise Violation("unknown operation")
    if node.name in seen:
        raise Violation("a node of this name exists already")
    operands = []
    for name in node.inputs:
        operand = seen.get(name)
        if operand is None:
            raise Violation(f"operand {name} is not defined before its use")
        if operand.body is not None and node.op != "take":
            raise Violation(f"reads the loop {name} other than by take")
        operands.append(operand)
    if len(operands) != row.operands and row.operands is not None:
        raise Violation(f"has {len(operands)} operands, not {row.operands}")
    if not operands and row.operands is None:
        raise Violation("has no operands")
    if (node.body is None) == (node.op == "repeat"):
        raise Violation("a repeat, and nothing else, has a body")
    _check_attributes(node)
    row.place(node, operands, scope)
    check_type(node.type, row.rule(node, operands))
    _in_ring(node.type, scope.ring_bits)


def _in_ring(type: RingType, ring_bits: int) -> None:
    if not 0 <= type.bound < math.inf:
        raise Violation(f"bound {type.bound} is not a magnitude")
    if not type.fits(ring_bits):
        raise Violation(
            f"bound {type.bound:g} with {type.frac_bits} fractional bits does not fit the {ring_bits}-bit ring"
        )


def _check_attributes(node: RingNode) -> None:
    """Violation unless a node has the attributes of its operation, no other ones, and each of its kind."""
    if node.op == "layout" and node.attr("kind") not in LAYOUTS:
        raise Violation(f"unknown layout {node.attr('kind')!r}")
    wanted = attributes_of(node)
    if tuple([key for key, _ in node.attrs]) != tuple([key for key, _ in wanted]):
        have, want = {key for key, _ in node.attrs}, {key for key, _ in wanted}
        if missing := sorted(want - have):
            raise Violation(f"attribute {missing[0]} is missing")
        unknown = sorted(have - want)
        raise Violation(f"unknown attribute {unknown[0]}" if unknown else "attributes are not in order")
    for (key, value), (_, attr_kind) in zip(node.attrs, wanted, strict=True):
        if not _is_of_kind(value, attr_kind):
            raise Violation(f"attribute {key} is {value!r}, not of kind {attr_kind}")


def _is_of_kind(value: object, kind: AttrKind) -> bool:
    if kind in ("int", "str"):
        return type(value) is (int if kind == "int" else str)
    inner = int if kind == "ints" else str
    return type(value) is tuple and all(type(v) is inner for v in value)
