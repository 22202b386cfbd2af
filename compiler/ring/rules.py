"""The primitives of the ring IR: PRIMITIVES is one table with one row for each.

A row says how many operands and which attributes an operation has, the type of its result, what kind it is and what it
is priced as. Builder, verifier, passes and cost model read the same rows: what is stated here is stated nowhere else.
The stored type of a node may have a narrower bound than its rule gives (calibration knows better), never a wider one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mpcc.compiler.ring import result_types as result
from mpcc.compiler.ring.ir import RingNode, RingType
from mpcc.compiler.ring.result_types import LAYOUTS, Attributes, AttrKind, Scope

Kind = Literal["leaf", "linear", "layout", "product", "truncation", "non-linear", "output", "state", "loop"]
# which operands must be public for a node to be local work of every party
FreeFor = Literal["any operands", "one public operand", "public matrices", "no operands"]

Rule = Callable[[RingNode, Sequence[RingNode]], RingType]
Place = Callable[[RingNode, Sequence[RingNode], Scope], None]


def anywhere(node: RingNode, operands: Sequence[RingNode], scope: Scope) -> None:
    """Of operations that may stand in every graph."""


@dataclass(frozen=True)
class Primitive:
    """One row. `operands` None means one or more; `price` may name an attribute, as in `trunc_{variant}`."""

    name: str
    kind: Kind
    operands: int | None
    attrs: Mapping[str, AttrKind]
    rule: Rule
    meaning: str
    price: str = ""
    free_for: FreeFor = "any operands"
    place: Place = anywhere
    attributes: Attributes = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(sorted(self.attrs.items())))


PRIMITIVES: Mapping[str, Primitive] = {
    row.name: row
    for row in (
        Primitive(
            "input",
            "leaf",
            0,
            {"name": "str", "role": "str"},
            result.input_type,
            "a value that its owner shares, or that all know where the role is public",
            place=result.input_place,
        ),
        Primitive(
            "param",
            "leaf",
            0,
            {"tensors": "strs"},
            result.given_type,
            "a weight; inside a repeat one tensor name per iteration",
            place=result.param_place,
        ),
        Primitive(
            "const",
            "leaf",
            0,
            {"value": "int"},
            result.const_type,
            "the public integer `value` in every element",
            place=result.const_place,
        ),
        Primitive(
            "arg",
            "leaf",
            0,
            {"index": "int", "kind": "str"},
            result.given_type,
            "an argument of the loop around it, of kind carried or invariant",
            place=result.arg_place,
        ),
        Primitive(
            "load_state",
            "leaf",
            0,
            {"rows": "int", "state": "str"},
            result.load_state_type,
            "the first rows of a state of `rows` rows, as requests before this one left it; shares that nobody owns",
            place=result.load_state_place,
        ),
        Primitive("add", "linear", 2, {}, result.sum_of_two_type, "a + b at one scale"),
        Primitive("sub", "linear", 2, {}, result.sum_of_two_type, "a - b at one scale"),
        Primitive(
            "mul_const",
            "linear",
            1,
            {"shift": "int", "value": "int"},
            result.mul_const_type,
            "a * value / 2^shift: the integers are multiplied, the scale grows by `shift`; free for value 1",
        ),
        Primitive("sum", "linear", 1, {"dim": "int"}, result.sum_type, "over one dimension, which is kept with size 1"),
        Primitive(
            "layout",
            "layout",
            None,
            {"kind": "str"},
            result.layout_type,
            "moves data only: reshape, permute, slice, expand or concat, each with attributes of its own (LAYOUTS)",
        ),
        Primitive(
            "mul", "product", 2, {}, result.mul_type, "a * b, scales add up", price="mul", free_for="one public operand"
        ),
        Primitive(
            "dot",
            "product",
            2,
            {},
            result.dot_type,
            "the sum of a * b over the last dimension, which is kept with size 1",
            price="dot",
            free_for="one public operand",
        ),
        Primitive(
            "matmul",
            "product",
            2,
            {},
            result.matmul_type,
            "[..., n, k] x [..., k, m] with equal leading dimensions",
            price="matmul",
            free_for="public matrices",
        ),
        Primitive(
            "block_matmul",
            "product",
            2,
            {"block": "int"},
            result.block_matmul_type,
            "[n, k + block] x [k + n, m]: the last columns of a are the n x n block-diagonal matrix that meets the "
            "last n rows of b",
            price="matmul",
            free_for="public matrices",
        ),
        Primitive(
            "trunc",
            "truncation",
            1,
            {"bits": "int", "variant": "str", "width": "int"},
            result.trunc_type,
            "a / 2^bits; the variant (local, safe or nearest) is selected on MP-SPDZ by `width`",
            price="trunc_{variant}",
            free_for="no operands",
            place=result.trunc_place,
        ),
        Primitive(
            "rescale",
            "truncation",
            1,
            {"frac_bits": "int"},
            result.rescale_type,
            "a at the wanted scale; the truncation pass makes it trunc or mul_const",
            place=result.rescale_place,
        ),
        Primitive(
            "lt",
            "non-linear",
            1,
            {"bits": "int"},
            result.lt_type,
            "1 where a < 0, else 0, at scale 0; |integer| < 2^(bits - 1)",
            price="lt",
            free_for="no operands",
            place=result.lt_place,
        ),
        Primitive(
            "select",
            "non-linear",
            3,
            {},
            result.select_type,
            "a where the first operand is 1, b where it is 0",
            price="mul",
            free_for="no operands",
        ),
        Primitive(
            "reveal",
            "output",
            1,
            {"name": "str", "to": "str"},
            result.reveal_type,
            "opened to the role `to` only",
            price="reveal",
            free_for="no operands",
            place=result.reveal_place,
        ),
        Primitive(
            "store_state",
            "state",
            2,
            {"rows": "int", "state": "str"},
            result.store_state_type,
            "keeps the first operand as rows of a state for later requests, from the row that the second, a public "
            "whole number, says; loads of the same request do not see it",
            place=result.store_state_place,
        ),
        Primitive(
            "repeat",
            "loop",
            None,
            {"carried": "int", "count": "int"},
            result.repeat_type,
            "runs its body `count` times on `carried` initial values and invariants; take reads the results",
            place=result.repeat_place,
        ),
        Primitive(
            "take", "loop", 1, {"index": "int"}, result.take_type, "carried value `index` after the last iteration"
        ),
    )
}


def attributes_of(node: RingNode) -> Attributes:
    """The attributes that a node must have; of a layout they depend on its kind."""
    layout = LAYOUTS.get(str(node.attr("kind"))) if node.op == "layout" else None
    return PRIMITIVES[node.op].attributes if layout is None else layout.attributes


def price_key(node: RingNode, public: Sequence[bool], public_products_local: bool = False) -> str | None:
    """The price list's entry for a node, or None where it is local work. `public` tells of each operand."""
    row = PRIMITIVES[node.op]
    if not row.price or row.free_for == "any operands":
        return None
    if row.free_for == "one public operand" and any(public):
        return None
    # where a product of a public and a shared matrix is not local, the public one is made trivial shares
    if row.free_for == "public matrices" and (any(public) if public_products_local else all(public)):
        return None
    return row.price.format(**dict(node.attrs)) if "{" in row.price else row.price
