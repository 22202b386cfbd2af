"""What each primitive of the ring IR gives, and where it may stand.

The type of a result follows from operands and attributes (`..._type`); where these do not fit, that is a `Violation`.
What depends on where a node stands (the ring, the loop around it, the stage of compilation) is said by `..._place`.
compiler/ring/rules.py puts both into the table of primitives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mpcc.compiler.errors import InternalError
from mpcc.compiler.protocols import LOCAL_WIDTH, SAFE_WIDTH
from mpcc.compiler.ring.ir import RingGraph, RingNode, RingType

TOLERANCE = 1e-6  # relative, on bounds
VARIANTS = ("local", "safe", "nearest")

AttrKind = Literal["int", "str", "ints", "strs"]
Attributes = tuple[tuple[str, AttrKind], ...]  # by rising name, as nodes store them


class Violation(InternalError):
    """What is wrong with one node; who catches it adds where."""


@dataclass(frozen=True)
class Scope:
    """Where a graph stands: in a loop body `loop` is the repeat node and `operands` the types of its operands."""

    ring_bits: int
    final: bool
    loop: RingNode | None = None
    operands: tuple[RingType, ...] = ()


def check_type(stored: RingType, rule: RingType) -> None:
    """Violation unless `stored` is the rule's type, or that with a narrower bound."""
    if stored.shape != rule.shape:
        raise Violation(f"shape is {list(stored.shape)}, the rule gives {list(rule.shape)}")
    if stored.frac_bits != rule.frac_bits:
        raise Violation(f"frac_bits is {stored.frac_bits}, the rule gives {rule.frac_bits}")
    if stored.public != rule.public:
        raise Violation(f"public is {stored.public}, the rule gives {rule.public}")
    if not stored.bound <= rule.bound * (1 + TOLERANCE):
        raise Violation(f"bound {stored.bound:g} is above {rule.bound:g}, which the rule gives")


# ** leaves: their own type says what they are **
def input_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    t = node.type
    return RingType(t.shape, t.frac_bits, t.bound, node.str_attr("role") == "public")


def input_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if scope.loop is not None:
        raise Violation("an input stands outside loops")
    if not node.str_attr("name"):
        raise Violation("has no name")


def given_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    return node.type


def param_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    wanted = 1 if scope.loop is None else scope.loop.int_attr("count")
    have = len(node.strs_attr("tensors"))
    if have != wanted:
        raise Violation(f"names {have} tensors for {wanted} iterations")


def const_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    t = node.type
    return RingType(t.shape, t.frac_bits, abs(node.int_attr("value")) / 2.0**t.frac_bits, True)


def const_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    magnitude = abs(node.int_attr("value")) / 2.0**node.type.frac_bits
    if node.type.bound < magnitude * (1 - TOLERANCE):
        raise Violation(f"bound {node.type.bound:g} is below the constant itself")


def arg_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if scope.loop is None:
        raise Violation("a loop argument outside a loop")
    kind, index, carried = node.str_attr("kind"), node.int_attr("index"), scope.loop.int_attr("carried")
    if kind not in ("carried", "invariant"):
        raise Violation(f"unknown kind {kind!r}")
    sources = scope.operands[:carried] if kind == "carried" else scope.operands[carried:]
    if not 0 <= index < len(sources):
        raise Violation(f"there is no {kind} argument {index}")
    source = sources[index]
    if node.type.public and not source.public:
        raise Violation("is public, but what the loop is given is not")
    check_type(node.type, RingType(source.shape, source.frac_bits, node.type.bound, node.type.public))


# ** linear **
def sum_of_two_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    if a.frac_bits != b.frac_bits:
        raise Violation(f"operands have {a.frac_bits} and {b.frac_bits} fractional bits")
    return RingType(a.shape, a.frac_bits, a.bound + b.bound, a.public and b.public)


def mul_const_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, shift = operands[0].type, node.int_attr("shift")
    bound = a.bound * abs(node.int_attr("value")) / 2.0**shift
    return RingType(a.shape, a.frac_bits + shift, bound, a.public)


def sum_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, dim = operands[0].type, node.int_attr("dim")
    _in_rank(a, dim)
    return RingType(_with_size(a.shape, dim, 1), a.frac_bits, a.bound * a.shape[dim], a.public)


def _same_shape(a: RingType, b: RingType) -> None:
    if a.shape != b.shape:
        raise Violation(f"operands have shapes {list(a.shape)} and {list(b.shape)}")


def _in_rank(a: RingType, dim: int) -> None:
    if not 0 <= dim < len(a.shape):
        raise Violation(f"dimension {dim} of a value of rank {len(a.shape)}")


def _with_size(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


# ** layout **
def layout_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    kind, parts = node.str_attr("kind"), [operand.type for operand in operands]
    if kind not in LAYOUTS:
        raise Violation(f"unknown layout {kind!r}")
    first = parts[0]
    if len(parts) == 1:
        return RingType(LAYOUTS[kind].rule(node, parts), first.frac_bits, first.bound, first.public)
    if kind != "concat":
        raise Violation(f"{kind} has {len(parts)} operands, not 1")
    if len({p.frac_bits for p in parts}) != 1:
        raise Violation("operands have different fractional bits")
    shape = LAYOUTS[kind].rule(node, parts)
    return RingType(shape, first.frac_bits, max(p.bound for p in parts), all(p.public for p in parts))


def _reshape(node: RingNode, parts: Sequence[RingType]) -> tuple[int, ...]:
    shape = node.ints_attr("shape")
    if math.prod(shape) != parts[0].elements:
        raise Violation(f"{parts[0].elements} elements do not fill {list(shape)}")
    return shape


def _permute(node: RingNode, parts: Sequence[RingType]) -> tuple[int, ...]:
    dims = node.ints_attr("dims")
    if sorted(dims) != list(range(len(parts[0].shape))):
        raise Violation(f"{dims} is no order of the dimensions")
    return tuple(parts[0].shape[d] for d in dims)


def _slice(node: RingNode, parts: Sequence[RingType]) -> tuple[int, ...]:
    dim, step = node.int_attr("dim"), node.int_attr("step")
    _in_rank(parts[0], dim)
    if step == 0:
        raise Violation("step is 0")
    taken = range(node.int_attr("start"), node.int_attr("stop"), step)
    if not taken:
        raise Violation("takes nothing")
    if min(taken[0], taken[-1]) < 0 or max(taken[0], taken[-1]) >= parts[0].shape[dim]:
        raise Violation(f"leaves the dimension of size {parts[0].shape[dim]}")
    return _with_size(parts[0].shape, dim, len(taken))


def _expand(node: RingNode, parts: Sequence[RingType]) -> tuple[int, ...]:
    shape, have = node.ints_attr("shape"), parts[0].shape
    if len(shape) != len(have) or any(h not in (1, w) for h, w in zip(have, shape, strict=True)):
        raise Violation(f"{list(have)} does not expand to {list(shape)}")
    return shape


def _concat(node: RingNode, parts: Sequence[RingType]) -> tuple[int, ...]:
    dim = node.int_attr("dim")
    for part in parts:
        _in_rank(part, dim)
    if len({_with_size(p.shape, dim, 0) for p in parts}) != 1:
        raise Violation("operands differ in another dimension")
    return _with_size(parts[0].shape, dim, sum(p.shape[dim] for p in parts))


@dataclass(frozen=True)
class Layout:
    """One way of moving data: its attributes beside `kind`, and the shape it gives."""

    attrs: Mapping[str, AttrKind]
    rule: Callable[[RingNode, Sequence[RingType]], tuple[int, ...]]
    attributes: Attributes = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(sorted({**self.attrs, "kind": "str"}.items())))


LAYOUTS: Mapping[str, Layout] = {
    "reshape": Layout({"shape": "ints"}, _reshape),
    "permute": Layout({"dims": "ints"}, _permute),
    "slice": Layout({"dim": "int", "start": "int", "stop": "int", "step": "int"}, _slice),
    "expand": Layout({"shape": "ints"}, _expand),
    "concat": Layout({"dim": "int"}, _concat),
}


# ** products **
def mul_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    return _product(a, b, a.shape, 1)


def dot_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, b = operands[0].type, operands[1].type
    _same_shape(a, b)
    if not a.shape:
        raise Violation("operands are scalars")
    return _product(a, b, (*a.shape[:-1], 1), a.shape[-1])


def matmul_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, b = operands[0].type, operands[1].type
    if not (len(a.shape) == len(b.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]):
        raise Violation(f"operands have shapes {list(a.shape)} and {list(b.shape)}")
    return _product(a, b, (*a.shape[:-1], b.shape[-1]), a.shape[-1])


def block_matmul_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, b, block = operands[0].type, operands[1].type, node.int_attr("block")
    fits = len(a.shape) == len(b.shape) == 2 and block >= 1 and a.shape[0] % block == 0
    if not (fits and a.shape[1] - block == b.shape[0] - a.shape[0] >= 0):
        raise Violation(f"operands have shapes {list(a.shape)} and {list(b.shape)} in blocks of {block}")
    return _product(a, b, (a.shape[0], b.shape[1]), a.shape[1])


def _product(a: RingType, b: RingType, shape: tuple[int, ...], terms: int) -> RingType:
    return RingType(shape, a.frac_bits + b.frac_bits, a.bound * b.bound * terms, a.public and b.public)


# ** truncations **
def truncation_width(variant: str, bits: int, source: RingType) -> int:
    """The attribute `width` of a truncation of `source` by `bits`.

    On MP-SPDZ the width selects between the local and the safe form; to nearest it is how many bits are looked at.
    """
    if variant == "local":
        return LOCAL_WIDTH
    width = min(source.int_bits + 2, SAFE_WIDTH) if variant == "nearest" else SAFE_WIDTH
    return max(width, bits + 1)


def trunc_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    return _rescaled(operands[0].type, operands[0].type.frac_bits - node.int_attr("bits"))


def trunc_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    bits, variant, width = node.int_attr("bits"), node.str_attr("variant"), node.int_attr("width")
    if not 1 <= bits < scope.ring_bits:
        raise Violation(f"truncates by {bits} bits")
    if variant not in VARIANTS:
        raise Violation(f"unknown variant {variant!r}")
    if width <= bits:
        raise Violation(f"width {width} leaves nothing of a truncation by {bits} bits")
    if variant == "nearest":  # bounds may have become narrower since the width was chosen
        if not min(operands[0].type.int_bits + 1, SAFE_WIDTH) <= width <= max(SAFE_WIDTH, bits + 1):
            raise Violation(f"width {width} does not hold {operands[0].type.int_bits} bits and a sign")
    elif width != (wanted := truncation_width(variant, bits, operands[0].type)):
        raise Violation(f"width {width} does not select the {variant} form, {wanted} does")


def rescale_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    return _rescaled(operands[0].type, node.int_attr("frac_bits"))


def rescale_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if scope.final:
        raise Violation("a rescale is left after the truncation pass")


def _rescaled(a: RingType, frac_bits: int) -> RingType:
    """At another scale, with the error of a truncation in its bound."""
    return RingType(a.shape, frac_bits, a.bound + 2.0**-frac_bits, a.public)


# ** non-linear **
def lt_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    a, bits = operands[0].type, node.int_attr("bits")
    if a.bound * 2.0**a.frac_bits > 2.0 ** (bits - 1) * (1 + TOLERANCE):
        raise Violation(f"{bits} bits are too few for |x| <= {a.bound:g} with {a.frac_bits} fractional bits")
    return RingType(a.shape, 0, 1.0, a.public)


def lt_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    bits = node.int_attr("bits")
    if not 1 <= bits < scope.ring_bits:
        raise Violation(f"compares {bits} bits")


def select_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    bit, a, b = (operand.type for operand in operands)
    _same_shape(bit, a)
    _same_shape(a, b)
    if bit.frac_bits != 0 or bit.bound > 1:
        raise Violation(f"the condition is {bit}, not a bit")
    if a.frac_bits != b.frac_bits:
        raise Violation(f"choices have {a.frac_bits} and {b.frac_bits} fractional bits")
    return RingType(a.shape, a.frac_bits, max(a.bound, b.bound), False)


# ** outputs **
def _shared(t: RingType) -> RingType:
    return RingType(t.shape, t.frac_bits, t.bound, False)


def reveal_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    return _shared(operands[0].type)


def reveal_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if scope.loop is not None:
        raise Violation("a reveal inside a loop")
    if not node.str_attr("name") or not node.str_attr("to"):
        raise Violation("has no name or no receiver")


# ** state **
def load_state_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    if not node.type.shape or node.type.shape[0] > node.int_attr("rows"):
        raise Violation(f"shape {list(node.type.shape)} is none of a state of {node.int_attr('rows')} rows")
    return _shared(node.type)


def load_state_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if scope.loop is not None:
        raise Violation("a state inside a loop")
    if not node.str_attr("state"):
        raise Violation("has no name")


def store_state_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    value, position = (operand.type for operand in operands)
    if not value.shape or value.shape[0] > node.int_attr("rows"):
        raise Violation(f"{list(value.shape)} does not fit a state of {node.int_attr('rows')} rows")
    if not position.public or position.elements != 1 or position.frac_bits != 0:
        raise Violation(f"the position is {position}, not one public whole number")
    return _shared(value)


def store_state_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    load_state_place(node, operands, scope)


# ** loops **
def repeat_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    body, carried = _body(node), node.int_attr("carried")
    if node.int_attr("count") < 1:
        raise Violation("runs no iteration")
    if not 0 <= carried <= len(operands):
        raise Violation(f"carries {carried} of {len(operands)} operands")
    if len(body.outputs) != carried:
        raise Violation(f"the body returns {len(body.outputs)} values, {carried} are carried")
    for i, (_, source) in enumerate(body.outputs):
        if source not in body.by_name:
            raise Violation(f"the body returns {source}, which does not exist")
        init, result = operands[i].type, body[source].type
        if init.shape != result.shape or init.frac_bits != result.frac_bits:
            raise Violation(f"carried value {i} enters as {init} and leaves as {result}")
    for inner in body.nodes:
        if inner.op == "arg" and inner.attr("kind") == "carried" and inner.type.public:
            raise Violation(f"carried argument {inner.name} is public: carried values are shared")
    return RingType((), 0, 0.0)


def repeat_place(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    if _body(node).ring_bits != scope.ring_bits:
        raise Violation(f"the body has a {_body(node).ring_bits}-bit ring")


def take_type(node: RingNode, operands: Sequence[RingNode]) -> RingType:
    loop, index = operands[0], node.int_attr("index")
    if loop.body is None:
        raise Violation(f"{loop.name} is {loop.op}, not a loop")
    if not 0 <= index < len(loop.body.outputs):
        raise Violation(f"the loop carries no value {index}")
    return _shared(loop.body[loop.body.outputs[index][1]].type)


def _body(node: RingNode) -> RingGraph:
    if node.body is None:
        raise Violation("has no body")
    return node.body
