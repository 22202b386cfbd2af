"""Writes StableHLO text, one operation per line; every value is f32 and has a static shape."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import Node

Shape = tuple[int, ...]
_SMALL = 2.0**-5  # a smaller public factor would lose too many of its bits in fixed point


@dataclass(frozen=True)
class Value:
    """A value of the program being written."""

    name: str
    shape: Shape

    @property
    def type(self) -> str:
        return tensor_type(self.shape)


@dataclass(frozen=True)
class Bits:
    """The name of a comparison's result, and its MLIR type."""

    name: str
    type: str


def tensor_type(shape: Shape) -> str:
    """The MLIR type of an f32 tensor."""
    return f"tensor<{'x'.join([*map(str, shape), 'f32'])}>"


def literal(number: float) -> str:
    """A number as the bits of its f32, which is exact."""
    if not math.isfinite(number):
        raise InternalError("a constant of the program is not finite")
    return f"0x{struct.unpack('<I', struct.pack('<f', number))[0]:08X}"


class Writer:
    """Appends operations; a method returns the value that its operation defines.

    `largest_sums`: by node of a norm, what no row's sum of squares exceeds.
    """

    def __init__(self, largest_sums: Mapping[str, float] | None = None) -> None:
        self.largest_sums = dict(largest_sums or {})
        self.lines: list[str] = []
        self.steps: dict[float, str] = {}  # public scalar arguments: value -> name
        self._constants: dict[tuple[float, Shape], Value] = {}

    def _define(self, shape: Shape, text: str) -> Value:
        value = Value(f"%{len(self.lines)}", shape)
        self.lines.append(f"{value.name} = {text}")
        return value

    def statistic(self, node: Node, key: str) -> float | None:
        """What calibration saw, or None; the rule of the operation has to say that it reads it."""
        if key not in RULES[node.op].reads:
            raise InternalError(f"the rule of {node.op} reads {key} and does not say so")
        found = dict(node.stats).get(key)
        return found if found is not None and math.isfinite(found) else None

    # ** constants and layout **
    def constant(self, number: float, shape: Shape = ()) -> Value:
        """A tensor that holds one public number."""
        key = (number, shape)
        if key not in self._constants:
            text = f"stablehlo.constant dense<{literal(number)}> : {tensor_type(shape)}"
            self._constants[key] = self._define(shape, text)
        return self._constants[key]

    def reshape(self, x: Value, shape: Shape) -> Value:
        if shape == x.shape:
            return x
        return self._define(shape, f"stablehlo.reshape {x.name} : ({x.type}) -> {tensor_type(shape)}")

    def permute(self, x: Value, dims: Sequence[int]) -> Value:
        shape = tuple(x.shape[d] for d in dims)
        text = f"stablehlo.transpose {x.name}, dims = {list(dims)} : ({x.type}) -> {tensor_type(shape)}"
        return self._define(shape, text)

    def transpose(self, x: Value) -> Value:
        """The last two dimensions exchanged."""
        rank = len(x.shape)
        return self.permute(x, [*range(rank - 2), rank - 1, rank - 2])

    def expand(self, x: Value, shape: Shape) -> Value:
        """Broadcast by NumPy's rules."""
        if shape == x.shape:
            return x
        first = len(shape) - len(x.shape)
        kept = [d for d, n in enumerate(x.shape) if n == shape[first + d]]
        small = self.reshape(x, tuple(x.shape[d] for d in kept))
        dims = [first + d for d in kept]
        text = f"stablehlo.broadcast_in_dim {small.name}, dims = {dims} : ({small.type}) -> {tensor_type(shape)}"
        return self._define(shape, text)

    def slice(self, x: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
        parts = [f"{start}:{stop}:{step}" if d == dim else f"0:{n}:1" for d, n in enumerate(x.shape)]
        shape = (*x.shape[:dim], len(range(start, stop, step)), *x.shape[dim + 1 :])
        text = f"stablehlo.slice {x.name} [{', '.join(parts)}] : ({x.type}) -> {tensor_type(shape)}"
        return self._define(shape, text)

    def concat(self, parts: Sequence[Value], dim: int) -> Value:
        shape = (*parts[0].shape[:dim], sum(p.shape[dim] for p in parts), *parts[0].shape[dim + 1 :])
        names, types = ", ".join(p.name for p in parts), ", ".join(p.type for p in parts)
        text = f"stablehlo.concatenate {names}, dim = {dim} : ({types}) -> {tensor_type(shape)}"
        return self._define(shape, text)

    # ** arithmetic **
    def unary(self, op: str, x: Value) -> Value:
        return self._define(x.shape, f"stablehlo.{op} {x.name} : {x.type}")

    def binary(self, op: str, x: Value, y: Value) -> Value:
        """Element by element, after broadcasting."""
        shape = common_shape(x.shape, y.shape)
        x, y = self.expand(x, shape), self.expand(y, shape)
        return self._define(shape, f"stablehlo.{op} {x.name}, {y.name} : {x.type}")

    def add(self, x: Value, y: Value) -> Value:
        return self.binary("add", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        return self.binary("subtract", x, y)

    def mul(self, x: Value, y: Value) -> Value:
        return self.binary("multiply", x, y)

    def shift(self, x: Value, number: float) -> Value:
        """x + number."""
        return x if number == 0 else self.add(x, self.constant(number, x.shape))

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor; a small factor is applied in two steps, the second of them a power of two and so exact."""
        if factor == 1:
            return x
        if factor == -1:
            return self.unary("negate", x)
        if abs(factor) >= _SMALL or factor == 0 or math.frexp(abs(factor))[0] == 0.5:
            return self.mul(x, self.constant(factor, x.shape))
        exponent = math.frexp(abs(factor))[1] - 1
        near = self.mul(x, self.constant(factor * 2.0**-exponent, x.shape))
        return self.binary("divide", near, self._argument(2.0**-exponent))

    def step(self, x: Value, factor: float) -> Value:
        """x * factor, done here and nowhere else: the compiler would join or move a constant, and lose its bits.

        The factor is a public argument of the program, known from the beginning.
        """
        if factor == 1:
            return x
        return self.mul(x, self._argument(factor))

    def _argument(self, number: float) -> Value:
        return Value(self.steps.setdefault(number, f"%step{len(self.steps)}"), ())

    def reciprocal(self, x: Value) -> Value:
        return self.binary("divide", self.constant(1.0, x.shape), x)

    def erf(self, x: Value) -> Value:
        """SPU's own erf; chlo, where StableHLO has it, is not known there."""
        text = f"stablehlo.custom_call @mhlo.erf({x.name}) {{mhlo.attributes = {{}}, mhlo.version = 1 : i64}}"
        return self._define(x.shape, f"{text} : ({x.type}) -> {x.type}")

    def negative(self, x: Value) -> Bits:
        """Where x < 0."""
        type, zero = x.type.replace("f32", "i1"), self.constant(0.0, x.shape)
        text = f"stablehlo.compare LT, {x.name}, {zero.name} : ({x.type}, {x.type}) -> {type}"
        return Bits(self._define(x.shape, text).name, type)

    def select(self, bits: Bits, yes: Value, no: Value) -> Value:
        """`yes` where the bit is set, else `no`."""
        return self._define(yes.shape, f"stablehlo.select {bits.name}, {yes.name}, {no.name} : {bits.type}, {yes.type}")

    def select_negative(self, x: Value, negative: Value, other: Value) -> Value:
        """`negative` where x < 0, else `other`."""
        return self.select(self.negative(x), negative, other)

    # ** sums and products **
    def reduce(self, op: str, x: Value, dims: Sequence[int], *, keepdim: bool) -> Value:
        """`op` is "add" or "maximum"."""
        if not dims:
            return x
        first = self.constant(0.0 if op == "add" else -(2.0**20))
        shape = tuple(n for d, n in enumerate(x.shape) if d not in dims)
        text = (
            f"stablehlo.reduce({x.name} init: {first.name}) applies stablehlo.{op} across dimensions = {list(dims)}"
            f" : ({x.type}, {first.type}) -> {tensor_type(shape)}"
        )
        result = self._define(shape, text)
        return self.reshape(result, tuple(1 if d in dims else n for d, n in enumerate(x.shape))) if keepdim else result

    def matmul(self, x: Value, y: Value) -> Value:
        """Over the last two dimensions; a plain matrix on the right takes all rows of x at once."""
        if len(y.shape) == 2:
            rows = self.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
            return self.reshape(self._dot(rows, y, 0), (*x.shape[:-1], y.shape[-1]))
        lead = common_shape(x.shape[:-2], y.shape[:-2])
        flat = (math.prod(lead),)
        left = self.reshape(self.expand(x, (*lead, *x.shape[-2:])), (*flat, *x.shape[-2:]))
        right = self.reshape(self.expand(y, (*lead, *y.shape[-2:])), (*flat, *y.shape[-2:]))
        return self.reshape(self._dot(left, right, 1), (*lead, x.shape[-2], y.shape[-1]))

    def _dot(self, x: Value, y: Value, batch: int) -> Value:
        shape = (*x.shape[:-1], y.shape[-1])
        batching = "batching_dims = [0] x [0], " if batch else ""
        return self._define(
            shape,
            f"stablehlo.dot_general {x.name}, {y.name}, {batching}contracting_dims = [{batch + 1}] x [{batch}]"
            f" : ({x.type}, {y.type}) -> {tensor_type(shape)}",
        )


def common_shape(*shapes: Shape) -> Shape:
    """The shape to which all of `shapes` broadcast."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True)
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in columns)


Write = Callable[[Writer, Node, Sequence[Value]], Value]


@dataclass(frozen=True)
class Rule:
    """How an operation is written, and which of its statistics that looks at."""

    write: Write
    reads: tuple[str, ...]


RULES: dict[str, Rule] = {}


def emits(*ops: str, reads: tuple[str, ...] = ()) -> Callable[[Write], Write]:
    """Register the rule of graph operations."""

    def register(write: Write) -> Write:
        for op in ops:
            if op in RULES:
                raise InternalError(f"two rules for {op}")
            RULES[op] = Rule(write, reads)
        return write

    return register


def number(node: Node, key: str, default: float | None = None) -> float:
    """A numeric attribute."""
    value = node.attr(key, default)
    if not isinstance(value, (int, float)):
        raise InternalError(f"attribute {key} of {node.op} must be a number")
    return float(value)


def integers(node: Node, key: str) -> tuple[int, ...]:
    """An attribute that is one integer or a tuple of them."""
    value = node.attr(key)
    parts = value if isinstance(value, tuple) else (value,)
    return tuple(int(v) for v in parts if isinstance(v, int))
