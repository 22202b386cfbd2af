"""The verifier of the ring IR: runs after every step that makes or changes a ring program.

A rule recomputes the type of a node from its operands and compares it with what is stored; RULES is the whole table.
Shape, scale and publicity must be equal; the bound may be narrower than the rule gives (calibration knows better),
never wider. A violation is an InternalError with position, operation, name and layer: breaking a rule is a bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.ir import HEADROOM_BITS, RingGraph, RingNode, RingType

TOLERANCE = 1e-6  # relative, on bounds
VARIANTS = ("local", "safe", "nearest")


class Violation(Exception):
    """What is wrong with one node; `verify` adds where."""


@dataclass(frozen=True)
class Scope:
    """Where a graph stands: in a loop body `loop` is the repeat node and `operands` the types of its operands."""

    ring_bits: int
    final: bool
    loop: RingNode | None = None
    operands: tuple[RingType, ...] = ()


Rule = Callable[[RingNode, list[RingNode], Scope], RingType]


def verify(graph: RingGraph, *, final: bool = False) -> None:
    """Raise InternalError at the first violation; with `final`, no rescale may be left."""
    _verify_graph(graph, Scope(graph.ring_bits, final))


def _verify_graph(graph: RingGraph, scope: Scope) -> None:
    known: dict[str, RingNode] = {}
    for index, node in enumerate(graph.nodes):
        try:
            _verify_node(node, known, scope)
        except Violation as violation:
            layer = node.origin.layer or "the model"
            raise InternalError(f"ring node {index}: {node.name} = {node.op} at {layer}: {violation}") from None
        known[node.name] = node
        if node.body is not None:
            operands = tuple(known[name].type for name in node.inputs)
            _verify_graph(node.body, replace(scope, loop=node, operands=operands))
    for name, source in graph.outputs:
        if source not in known:
            raise InternalError(f"output {name!r} reads {source}, which does not exist")
        if scope.loop is None and known[source].op != "reveal":
            raise InternalError(f"output {name!r} is {source} = {known[source].op}, but only a reveal may leave")


def _verify_node(node: RingNode, known: dict[str, RingNode], scope: Scope) -> None:
    _require(node.op in RULES, "unknown operation")
    _require(node.name not in known, "a node of this name exists already")
    for name in node.inputs:
        _require(name in known, f"operand {name} is not defined before its use")
    count, rule = RULES[node.op]
    _require(count is None or len(node.inputs) == count, f"has {len(node.inputs)} operands, not {count}")
    _require(count is not None or bool(node.inputs), "has no operands")
    _require((node.body is None) == (node.op != "repeat"), "a repeat, and nothing else, has a body")
    operands = [known[name] for name in node.inputs]
    for operand in operands:
        _require(operand.op != "repeat" or node.op == "take", f"reads the loop {operand.name} other than by take")
    try:
        _same_type(node.type, rule(node, operands, scope))
    except InternalError as error:  # a missing or ill-typed attribute
        raise Violation(str(error)) from None
    _in_ring(node.type, scope.ring_bits)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _same_type(stored: RingType, rule: RingType) -> None:
    _require(stored.shape == rule.shape, f"shape is {list(stored.shape)}, the rule gives {list(rule.shape)}")
    _require(stored.frac_bits == rule.frac_bits, f"frac_bits is {stored.frac_bits}, the rule gives {rule.frac_bits}")
    _require(stored.public == rule.public, f"public is {stored.public}, the rule gives {rule.public}")
    slack = rule.bound * (1 + TOLERANCE)
    _require(stored.bound <= slack, f"bound {stored.bound:g} is above {rule.bound:g}, which the rule gives")


def _in_ring(type: RingType, ring_bits: int) -> None:
    _require(math.isfinite(type.bound) and type.bound >= 0, f"bound {type.bound} is not a magnitude")
    fits = type.bound * 2.0**type.frac_bits < 2.0 ** (ring_bits - HEADROOM_BITS)
    _require(fits, f"bound {type.bound:g} with {type.frac_bits} fractional bits does not fit the {ring_bits}-bit ring")


# ** leaves **
def _input(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    _require(scope.loop is None, "an input stands outside loops")
    _require(bool(node.str_attr("name")), "has no name")
    return replace(node.type, public=node.str_attr("role") == "public")


def _param(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    wanted = 1 if scope.loop is None else scope.loop.int_attr("count")
    have = len(node.strs_attr("tensors"))
    _require(have == wanted, f"names {have} tensors for {wanted} iterations")
    return node.type


def _const(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    magnitude = abs(node.int_attr("value")) / 2.0**node.type.frac_bits
    _require(node.type.bound >= magnitude * (1 - TOLERANCE), f"bound {node.type.bound:g} is below the constant itself")
    return replace(node.type, bound=magnitude, public=True)


def _arg(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    if scope.loop is None:
        raise Violation("a loop argument outside a loop")
    kind, index, carried = node.str_attr("kind"), node.int_attr("index"), scope.loop.int_attr("carried")
    _require(kind in ("carried", "invariant"), f"unknown kind {kind!r}")
    sources = scope.operands[:carried] if kind == "carried" else scope.operands[carried:]
    _require(0 <= index < len(sources), f"there is no {kind} argument {index}")
    source = sources[index]
    _require(source.public or not node.type.public, "is public, but what the loop is given is not")
    return replace(node.type, shape=source.shape, frac_bits=source.frac_bits)


# ** linear **
def _sum_of_two(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    _require(a.frac_bits == b.frac_bits, f"operands have {a.frac_bits} and {b.frac_bits} fractional bits")
    return RingType(a.shape, a.frac_bits, a.bound + b.bound, a.public and b.public)


def _mul_const(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, shift = operands[0].type, node.int_attr("shift")
    bound = a.bound * abs(node.int_attr("value")) / 2.0**shift
    return RingType(a.shape, a.frac_bits + shift, bound, a.public)


def _sum(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, dim = operands[0].type, node.int_attr("dim")
    _in_rank(a, dim)
    return RingType(_with_size(a.shape, dim, 1), a.frac_bits, a.bound * a.shape[dim], a.public)


def _same_shape(a: RingType, b: RingType) -> None:
    _require(a.shape == b.shape, f"operands have shapes {list(a.shape)} and {list(b.shape)}")


def _in_rank(a: RingType, dim: int) -> None:
    _require(0 <= dim < len(a.shape), f"dimension {dim} of a value of rank {len(a.shape)}")


def _with_size(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


# ** layout **
def _layout(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    kind, parts = node.str_attr("kind"), [operand.type for operand in operands]
    _require(kind in LAYOUTS, f"unknown layout {kind!r}")
    _require(len(parts) == 1 or kind == "concat", f"{kind} has {len(parts)} operands, not 1")
    _require(len({p.frac_bits for p in parts}) == 1, "operands have different fractional bits")
    shape = LAYOUTS[kind](node, parts)
    return RingType(shape, parts[0].frac_bits, max(p.bound for p in parts), all(p.public for p in parts))


def _reshape(node: RingNode, parts: list[RingType]) -> tuple[int, ...]:
    shape = node.ints_attr("shape")
    _require(math.prod(shape) == parts[0].elements, f"{parts[0].elements} elements do not fill {list(shape)}")
    return shape


def _permute(node: RingNode, parts: list[RingType]) -> tuple[int, ...]:
    dims = node.ints_attr("dims")
    _require(sorted(dims) == list(range(len(parts[0].shape))), f"{dims} is no order of the dimensions")
    return tuple(parts[0].shape[d] for d in dims)


def _slice(node: RingNode, parts: list[RingType]) -> tuple[int, ...]:
    dim, step = node.int_attr("dim"), node.int_attr("step")
    _in_rank(parts[0], dim)
    _require(step != 0, "step is 0")
    taken = range(node.int_attr("start"), node.int_attr("stop"), step)
    _require(len(taken) > 0, "takes nothing")
    inside = min(taken) >= 0 and max(taken) < parts[0].shape[dim]
    _require(inside, f"leaves the dimension of size {parts[0].shape[dim]}")
    return _with_size(parts[0].shape, dim, len(taken))


def _expand(node: RingNode, parts: list[RingType]) -> tuple[int, ...]:
    shape, have = node.ints_attr("shape"), parts[0].shape
    fits = len(shape) == len(have) and all(h in (1, w) for h, w in zip(have, shape, strict=True))
    _require(fits, f"{list(have)} does not expand to {list(shape)}")
    return shape


def _concat(node: RingNode, parts: list[RingType]) -> tuple[int, ...]:
    dim = node.int_attr("dim")
    for part in parts:
        _in_rank(part, dim)
    rest = {_with_size(p.shape, dim, 0) for p in parts}
    _require(len(rest) == 1, "operands differ in another dimension")
    return _with_size(parts[0].shape, dim, sum(p.shape[dim] for p in parts))


LAYOUTS: dict[str, Callable[[RingNode, list[RingType]], tuple[int, ...]]] = {
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "concat": _concat,
}


# ** products **
def _mul(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    return _product(a, b, a.shape, 1)


def _dot(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    _require(bool(a.shape), "operands are scalars")
    return _product(a, b, (*a.shape[:-1], 1), a.shape[-1])


def _matmul(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, b = operands[0].type, operands[1].type
    fits = len(a.shape) == len(b.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    _require(fits, f"operands have shapes {list(a.shape)} and {list(b.shape)}")
    return _product(a, b, (*a.shape[:-1], b.shape[-1]), a.shape[-1])


def _block_matmul(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, b, block = operands[0].type, operands[1].type, node.int_attr("block")
    fits = len(a.shape) == len(b.shape) == 2 and block >= 1 and a.shape[0] % block == 0
    _require(
        fits and a.shape[1] - block == b.shape[0] - a.shape[0] >= 0,
        f"operands have shapes {list(a.shape)} and {list(b.shape)} in blocks of {block}",
    )
    return _product(a, b, (a.shape[0], b.shape[1]), a.shape[1])


def _product(a: RingType, b: RingType, shape: tuple[int, ...], terms: int) -> RingType:
    return RingType(shape, a.frac_bits + b.frac_bits, a.bound * b.bound * terms, a.public and b.public)


# ** non-linear **
def _trunc(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, bits, variant = operands[0].type, node.int_attr("bits"), node.str_attr("variant")
    _require(1 <= bits < scope.ring_bits, f"truncates by {bits} bits")
    _require(variant in VARIANTS, f"unknown variant {variant!r}")
    frac_bits = a.frac_bits - bits
    return replace(a, frac_bits=frac_bits, bound=a.bound + 2.0**-frac_bits)


def _rescale(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    _require(not scope.final, "a rescale is left after the truncation pass")
    a, frac_bits = operands[0].type, node.int_attr("frac_bits")
    return replace(a, frac_bits=frac_bits, bound=a.bound + 2.0**-frac_bits)


def _lt(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    a, bits = operands[0].type, node.int_attr("bits")
    _require(1 <= bits < scope.ring_bits, f"compares {bits} bits")
    enough = a.bound * 2.0**a.frac_bits <= 2.0 ** (bits - 1) * (1 + TOLERANCE)
    _require(enough, f"{bits} bits are too few for |x| <= {a.bound:g} with {a.frac_bits} fractional bits")
    return RingType(a.shape, 0, 1.0, a.public)


def _select(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    bit, a, b = (operand.type for operand in operands)
    _same_shape(bit, a)
    _same_shape(a, b)
    _require(bit.frac_bits == 0 and bit.bound <= 1, f"the condition is {bit}, not a bit")
    _require(a.frac_bits == b.frac_bits, f"choices have {a.frac_bits} and {b.frac_bits} fractional bits")
    return RingType(a.shape, a.frac_bits, max(a.bound, b.bound), False)


def _reveal(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    _require(scope.loop is None, "a reveal inside a loop")
    _require(bool(node.str_attr("name")) and bool(node.str_attr("to")), "has no name or no receiver")
    return replace(operands[0].type, public=False)


# ** loops **
def _repeat(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    body, carried = node.body, node.int_attr("carried")
    if body is None:
        raise Violation("has no body")
    _require(node.int_attr("count") >= 1, "runs no iteration")
    _require(0 <= carried <= len(operands), f"carries {carried} of {len(operands)} operands")
    _require(body.ring_bits == scope.ring_bits, f"the body has a {body.ring_bits}-bit ring")
    _require(len(body.outputs) == carried, f"the body returns {len(body.outputs)} values, {carried} are carried")
    defined = {inner.name: inner.type for inner in body.nodes}
    for i, (_, source) in enumerate(body.outputs):
        if source not in defined:
            raise Violation(f"the body returns {source}, which does not exist")
        _same_carried(i, operands[i].type, defined[source])
    for inner in body.nodes:
        if inner.op == "arg" and inner.attr("kind") == "carried" and inner.type.public:
            raise Violation(f"carried argument {inner.name} is public: carried values are shared")
    return RingType((), 0, 0.0)


def _same_carried(index: int, init: RingType, result: RingType) -> None:
    _require(init.shape == result.shape, f"carried value {index} enters as {init} and leaves as {result}")
    _require(init.frac_bits == result.frac_bits, f"carried value {index} enters as {init} and leaves as {result}")


def _take(node: RingNode, operands: list[RingNode], scope: Scope) -> RingType:
    loop, index = operands[0], node.int_attr("index")
    if loop.body is None:
        raise Violation(f"{loop.name} is {loop.op}, not a loop")
    _require(0 <= index < len(loop.body.outputs), f"the loop carries no value {index}")
    return replace(loop.body[loop.body.outputs[index][1]].type, public=False)


# op: (number of operands, or None for one or more; rule)
RULES: dict[str, tuple[int | None, Rule]] = {
    "input": (0, _input),
    "param": (0, _param),
    "const": (0, _const),
    "arg": (0, _arg),
    "add": (2, _sum_of_two),
    "sub": (2, _sum_of_two),
    "mul_const": (1, _mul_const),
    "sum": (1, _sum),
    "layout": (None, _layout),
    "mul": (2, _mul),
    "dot": (2, _dot),
    "matmul": (2, _matmul),
    "block_matmul": (2, _block_matmul),
    "trunc": (1, _trunc),
    "rescale": (1, _rescale),
    "lt": (1, _lt),
    "select": (3, _select),
    "reveal": (1, _reveal),
    "repeat": (None, _repeat),
    "take": (1, _take),
}
