"""Building ring programs: one method per primitive, and the small compositions that everybody needs."""

from __future__ import annotations

import math
from dataclasses import replace

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.ring.ir import NOWHERE, RingGraph, RingNode, RingType
from mpcc.compiler.ring.result_types import Violation, truncation_width
from mpcc.compiler.ring.rules import PRIMITIVES
from mpcc.compiler.types import Attr, attributes

_UNKNOWN = RingType((), 0, 0.0)  # until the rule has given the type


class Builder:
    """Appends primitives; shape, scale, bound and publicity of each result are what its rule gives.

    `bound=` narrows a result below what interval arithmetic gives, where calibration knows better; it may never widen
    one silently. A result that does not fit the ring is a RangeError that names the layer.
    """

    def __init__(self, ring_bits: int = 64, prefix: str = "r") -> None:
        self.ring_bits = ring_bits
        self.prefix = prefix
        self.nodes: list[RingNode] = []
        self.origin = NOWHERE

    def append(
        self,
        op: str,
        operands: tuple[RingNode, ...],
        /,
        given: RingType = _UNKNOWN,
        bound: float | None = None,
        body: RingGraph | None = None,
        **attrs: Attr,
    ) -> RingNode:
        """One primitive by its name; `given` is the type of a leaf.

        Raises:
            InternalError: operands or attributes break the rule of the operation.
            RangeError: the result does not fit the ring.
        """
        name, inputs = f"{self.prefix}{len(self.nodes)}", tuple([n.name for n in operands])
        node = RingNode(name, op, inputs, attributes(**attrs), given, self.origin, "", body)
        try:
            type = PRIMITIVES[op].rule(node, operands)
        except Violation as violation:
            raise InternalError(
                f"{op} of {', '.join(str(n.type) for n in operands)}: {violation} in {self.origin}"
            ) from None
        if bound is not None:
            type = type.within(bound)
        if not type.fits(self.ring_bits):
            raise self._too_large(op, type)
        node = node.with_type(type)
        self.nodes.append(node)
        return node

    def _too_large(self, op: str, type: RingType) -> RangeError:
        return RangeError(
            f"|{self.origin.graph_op or op}| may reach {type.bound:.4g}, which with {type.frac_bits} fractional bits "
            f"does not fit the {self.ring_bits}-bit ring",
            where=f"{self.origin.layer or 'the model'} ({self.origin.node})",
            todo="use fewer fractional bits, or calibration inputs that are closer to real ones",
        )

    # ** leaves **
    def input(self, name: str, shape: tuple[int, ...], frac_bits: int, bound: float, role: str) -> RingNode:
        return self.append("input", (), RingType(shape, frac_bits, bound), name=name, role=role)

    def param(
        self, tensors: tuple[str, ...], shape: tuple[int, ...], frac_bits: int, bound: float, *, public: bool
    ) -> RingNode:
        return self.append("param", (), RingType(shape, frac_bits, bound, public), tensors=tensors)

    def const(self, value: float, shape: tuple[int, ...], frac_bits: int) -> RingNode:
        """The public number `value`, rounded to `frac_bits`, in every element."""
        return self.append("const", (), RingType(shape, frac_bits, 0.0), value=round(value * 2.0**frac_bits))

    def arg(self, kind: str, index: int, type: RingType) -> RingNode:
        return self.append("arg", (), type, kind=kind, index=index)

    # ** linear **
    def add(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self.append("add", (a, b), bound=bound)

    def sub(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self.append("sub", (a, b), bound=bound)

    def add_const(self, a: RingNode, value: float, *, bound: float | None = None) -> RingNode:
        return self.add(a, self.const(value, a.type.shape, a.type.frac_bits), bound=bound)

    def const_sub(self, value: float, a: RingNode, *, bound: float | None = None) -> RingNode:
        return self.sub(self.const(value, a.type.shape, a.type.frac_bits), a, bound=bound)

    def mul_int(self, a: RingNode, value: int, shift: int = 0, *, bound: float | None = None) -> RingNode:
        """a * value / 2^shift, exactly: the integers are multiplied, the scale grows by `shift`."""
        return self.append("mul_const", (a,), bound=bound, value=value, shift=shift)

    def scale(self, a: RingNode, factor: float, bits: int) -> RingNode:
        """a * factor with the factor rounded to `bits` fractional bits; powers of two cost no scale."""
        mantissa, exponent = math.frexp(abs(factor)) if factor else (0.0, 0)
        if mantissa == 0.5:
            sign = -1 if factor < 0 else 1
            power = exponent - 1
            return self.mul_int(a, sign, -power) if power <= a.type.frac_bits else self.mul_int(a, sign * 2**power)
        return self.mul_int(a, round(factor * 2.0**bits), bits)

    def reinterpret(self, a: RingNode, shift: int) -> RingNode:
        """a / 2^shift by moving the binary point: no operation at run time."""
        return a if shift == 0 else self.mul_int(a, 1, shift)

    def neg(self, a: RingNode) -> RingNode:
        return self.mul_int(a, -1)

    def sum(self, a: RingNode, dim: int, *, bound: float | None = None) -> RingNode:
        return self.append("sum", (a,), bound=bound, dim=dim)

    # ** layout: what changes nothing makes no node **
    def reshape(self, a: RingNode, shape: tuple[int, ...]) -> RingNode:
        return a if shape == a.type.shape else self.append("layout", (a,), kind="reshape", shape=shape)

    def permute(self, a: RingNode, dims: tuple[int, ...]) -> RingNode:
        same = dims == tuple(range(len(a.type.shape)))
        return a if same else self.append("layout", (a,), kind="permute", dims=dims)

    def transpose(self, a: RingNode) -> RingNode:
        """Swap the last two dimensions."""
        n = len(a.type.shape)
        return self.permute(a, (*range(n - 2), n - 1, n - 2))

    def slice(self, a: RingNode, dim: int, start: int, stop: int, step: int = 1) -> RingNode:
        if step > 0 and len(range(start, stop, step)) == a.type.shape[dim]:
            return a
        return self.append("layout", (a,), kind="slice", dim=dim, start=start, stop=stop, step=step)

    def expand(self, a: RingNode, shape: tuple[int, ...]) -> RingNode:
        """Repeat dimensions of size 1; missing leading dimensions are added."""
        if len(a.type.shape) < len(shape):
            a = self.reshape(a, (1,) * (len(shape) - len(a.type.shape)) + a.type.shape)
        return a if shape == a.type.shape else self.append("layout", (a,), kind="expand", shape=shape)

    def concat(self, parts: list[RingNode], dim: int) -> RingNode:
        return parts[0] if len(parts) == 1 else self.append("layout", tuple(parts), kind="concat", dim=dim)

    # ** products **
    def mul(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self.append("mul", (a, b), bound=bound)

    def dot(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self.append("dot", (a, b), bound=bound)

    def matmul(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self.append("matmul", (a, b), bound=bound)

    def block_matmul(self, a: RingNode, b: RingNode, block: int, *, bound: float | None = None) -> RingNode:
        """a's last columns times the rows of b that belong to their block, the others as in `matmul`."""
        return self.append("block_matmul", (a, b), bound=bound, block=block)

    # ** scales **
    def rescale(self, a: RingNode, frac_bits: int, *, bound: float | None = None) -> RingNode:
        """Ask for a scale; the truncation pass decides how to reach it."""
        if a.type.frac_bits == frac_bits and bound is None:
            return a
        return self.append("rescale", (a,), bound=bound, frac_bits=frac_bits)

    def trunc(self, a: RingNode, bits: int, variant: str = "safe", *, bound: float | None = None) -> RingNode:
        """a / 2^bits; programs ask with `rescale` instead, and passes place truncations."""
        width = truncation_width(variant, bits, a.type)
        return self.append("trunc", (a,), bound=bound, bits=bits, variant=variant, width=width)

    # ** non-linear **
    def lt_zero(self, a: RingNode) -> RingNode:
        """1 where a < 0, else 0; only as many bits are compared as the bound needs."""
        return self.append("lt", (a,), bits=min(a.type.int_bits + 1, self.ring_bits - 1))

    def select(self, bit: RingNode, a: RingNode, b: RingNode) -> RingNode:
        return self.append("select", (bit, a, b))

    def reveal(self, a: RingNode, name: str) -> RingNode:
        return self.append("reveal", (a,), name=name, to="client")

    # ** state **
    def load_state(
        self, state: str, shape: tuple[int, ...], frac_bits: int, bound: float, rows: int | None = None
    ) -> RingNode:
        """The first shape[0] rows of a state that has `rows` of them (default: these are all)."""
        rows = shape[0] if rows is None else rows
        return self.append("load_state", (), RingType(shape, frac_bits, bound), state=state, rows=rows)

    def store_state(self, a: RingNode, position: RingNode, state: str, rows: int) -> RingNode:
        """Keep `a` as rows of a state, from the public row `position` on."""
        return self.append("store_state", (a, position), state=state, rows=rows)

    # ** loops **
    def repeat(self, inits: list[RingNode], invariants: list[RingNode], body: RingGraph, count: int) -> list[RingNode]:
        """The carried values after `count` iterations of `body`."""
        loop = self.append("repeat", (*inits, *invariants), body=body, count=count, carried=len(inits))
        return [self.append("take", (loop,), index=i) for i in range(len(body.outputs))]

    def mark_result(self, node: RingNode, graph_node: str) -> RingNode:
        """Record that `node` is the result of a graph node, for traces and range checks."""
        for i in range(len(self.nodes) - 1, -1, -1):
            if self.nodes[i].name == node.name:
                if not self.nodes[i].result_of:  # a view that computes nothing shares its operand's value
                    self.nodes[i] = replace(self.nodes[i], result_of=graph_node)
                return self.nodes[i]
        raise InternalError(f"{node.name} is not in this builder")

    def graph(self, outputs: list[tuple[str, RingNode]]) -> RingGraph:
        return RingGraph(tuple(self.nodes), tuple((n, v.name) for n, v in outputs), self.ring_bits)
