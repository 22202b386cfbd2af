"""Ring IR: what MPC does.

About twenty primitives over Z_2^k. Every value is an array of ring elements with an explicit scale (`frac_bits`: the
integer v stands for v / 2^frac_bits) and a magnitude bound (`bound`: the largest |real value| it may take). Shapes of
element-wise operands are equal: broadcasting is an explicit `layout`. The emulator defines the semantics; a back end
implements the primitives and nothing else.

    op         operands      attributes              result
    input      -             name, role              shared by its owner (or known to all: type.public)
    param      -             tensors                 a weight; inside a repeat one tensor name per iteration
    const      -             value                   the public integer `value` everywhere
    arg        -             kind, index             loop argument ("carried" | "invariant")
    add, sub   a, b          -                       equal frac_bits
    mul_const  a             value, shift            a * value, frac_bits + shift (value 1: reinterpretation, free)
    sum        a             dim                     over one dimension, kept with size 1
    layout     a...          kind, ...               reshape | permute | slice | expand | concat: moves data only
    mul        a, b          -                       element-wise, frac_bits add up
    dot        a, b          -                       sum over the last dimension of a * b, kept with size 1
    matmul     a, b          -                       [..., n, k] x [..., k, m], leading dimensions equal
    block_matmul  a, b       block                   [n, k + block] x [k + n, m]: the last columns of a are the n x n
                                                     block-diagonal matrix that meets the last n rows of b
    trunc      a             bits, variant           a / 2^bits; variant local | safe | nearest
    rescale    a             frac_bits               wanted scale; the truncation pass makes it trunc or mul_const
    lt         a             bits                    1 where a < 0 else 0, frac_bits 0; |integer| < 2^(bits - 1)
    select     c, a, b       -                       c ? a : b for c in {0, 1}
    reveal     a             name, to                opened to one role only
    repeat     init, inv...  count, carried          runs `body`; results are read by take
    take       r             index                   carried value `index` after the last iteration
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.types import Attr, attributes

RING_OPS = (
    "input",
    "param",
    "const",
    "arg",
    "add",
    "sub",
    "mul_const",
    "sum",
    "layout",
    "mul",
    "dot",
    "matmul",
    "block_matmul",
    "trunc",
    "rescale",
    "lt",
    "select",
    "reveal",
    "repeat",
    "take",
)
LEAVES = frozenset({"input", "param", "const", "arg"})
HEADROOM_BITS = 2  # sign, and one bit for the offset that signed truncation adds


@dataclass(frozen=True)
class RingType:
    """Shape, scale and magnitude of a ring value; `public` values are known to every party."""

    shape: tuple[int, ...]
    frac_bits: int
    bound: float
    public: bool = False

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def int_bits(self) -> int:
        """The smallest n with |integer| < 2^n for every value within the bound."""
        return math.floor(math.log2(self.bound * 2.0**self.frac_bits)) + 1 if self.bound > 0 else 0

    def __str__(self) -> str:
        shape = ",".join(map(str, self.shape))
        return f"{'public' if self.public else 'share'}[{shape}] q{self.frac_bits} |x|<={self.bound:g}"


@dataclass(frozen=True)
class RingOrigin:
    """The graph node a value implements and the module it stands in (`{i}` where a loop runs over layers)."""

    node: str = ""
    layer: str = ""
    graph_op: str = ""


@dataclass(frozen=True)
class RingNode:
    """One primitive and its single result. `exact` marks the value that equals the graph node's own result."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: tuple[tuple[str, Attr], ...]
    type: RingType
    origin: RingOrigin = field(default_factory=RingOrigin)
    result_of: str = ""  # graph node whose result this is, for traces and range checks
    body: RingGraph | None = None

    def attr(self, key: str, default: Attr = None) -> Attr:
        for k, v in self.attrs:
            if k == key:
                return v
        return default

    def int_attr(self, key: str) -> int:
        value = self.attr(key)
        if not isinstance(value, int):
            raise InternalError(f"{self.name}: attribute {key} is {value!r}")
        return value

    def str_attr(self, key: str) -> str:
        value = self.attr(key)
        if not isinstance(value, str):
            raise InternalError(f"{self.name}: attribute {key} is {value!r}")
        return value

    def ints_attr(self, key: str) -> tuple[int, ...]:
        value = self.attr(key)
        if not isinstance(value, tuple):
            raise InternalError(f"{self.name}: attribute {key} is {value!r}")
        return tuple(int(v) for v in value)  # type: ignore[arg-type]

    def strs_attr(self, key: str) -> tuple[str, ...]:
        value = self.attr(key)
        if not isinstance(value, tuple):
            raise InternalError(f"{self.name}: attribute {key} is {value!r}")
        return tuple(str(v) for v in value)


@dataclass(frozen=True)
class RingGraph:
    """Nodes in topological order; outputs are (name, node): revealed values, or a body's next carried values."""

    nodes: tuple[RingNode, ...]
    outputs: tuple[tuple[str, str], ...]
    ring_bits: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {node.name: node for node in self.nodes})

    def __getitem__(self, name: str) -> RingNode:
        index: dict[str, RingNode] = self._index  # type: ignore[attr-defined]
        return index[name]

    def __iter__(self) -> Iterator[RingNode]:
        return iter(self.nodes)

    def walk(self) -> Iterator[tuple[RingNode, int]]:
        """Every node with the number of times it runs, bodies included."""
        for node in self.nodes:
            yield node, 1
            if node.body is not None:
                count = node.int_attr("count")
                for inner, times in node.body.walk():
                    yield inner, times * count


class Builder:
    """Appends primitives and derives shape, scale, bound and publicity of each result.

    `bound=` narrows a result below what interval arithmetic gives, where calibration knows better; it may never widen
    one silently. A result that does not fit the ring is a RangeError that names the layer.
    """

    def __init__(self, ring_bits: int = 64, prefix: str = "r") -> None:
        self.ring_bits = ring_bits
        self.prefix = prefix
        self.nodes: list[RingNode] = []
        self.origin = RingOrigin()

    def _append(
        self,
        op: str,
        inputs: tuple[RingNode, ...],
        type: RingType,
        *,
        bound: float | None = None,
        body: RingGraph | None = None,
        **attrs: Attr,
    ) -> RingNode:
        if bound is not None:
            type = replace(type, bound=min(type.bound, bound))
        if type.bound * 2.0**type.frac_bits >= 2.0 ** (self.ring_bits - HEADROOM_BITS):
            raise RangeError(
                f"|{self.origin.graph_op or op}| may reach {type.bound:.4g}, which with {type.frac_bits} fractional "
                f"bits does not fit the {self.ring_bits}-bit ring",
                where=f"{self.origin.layer or 'the model'} ({self.origin.node})",
                todo="use fewer fractional bits, or calibration inputs that are closer to real ones",
            )
        node = RingNode(
            f"{self.prefix}{len(self.nodes)}",
            op,
            tuple(n.name for n in inputs),
            attributes(**attrs),
            type,
            self.origin,
            body=body,
        )
        self.nodes.append(node)
        return node

    # ** leaves **
    def input(self, name: str, shape: tuple[int, ...], frac_bits: int, bound: float, role: str) -> RingNode:
        return self._append("input", (), RingType(shape, frac_bits, bound, role == "public"), name=name, role=role)

    def param(
        self, tensors: tuple[str, ...], shape: tuple[int, ...], frac_bits: int, bound: float, *, public: bool
    ) -> RingNode:
        return self._append("param", (), RingType(shape, frac_bits, bound, public), tensors=tensors)

    def const(self, value: float, shape: tuple[int, ...], frac_bits: int) -> RingNode:
        """The public number `value`, rounded to `frac_bits`, in every element."""
        integer = round(value * 2.0**frac_bits)
        return self._append("const", (), RingType(shape, frac_bits, abs(integer) / 2.0**frac_bits, True), value=integer)

    def arg(self, kind: str, index: int, type: RingType) -> RingNode:
        return self._append("arg", (), type, kind=kind, index=index)

    # ** linear **
    def add(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self._append("add", (a, b), self._sum_type(a, b), bound=bound)

    def sub(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        return self._append("sub", (a, b), self._sum_type(a, b), bound=bound)

    def _sum_type(self, a: RingNode, b: RingNode) -> RingType:
        if a.type.shape != b.type.shape or a.type.frac_bits != b.type.frac_bits:
            raise InternalError(f"add/sub of {a.type} and {b.type} in {self.origin}")
        return RingType(a.type.shape, a.type.frac_bits, a.type.bound + b.type.bound, a.type.public and b.type.public)

    def add_const(self, a: RingNode, value: float, *, bound: float | None = None) -> RingNode:
        return self.add(a, self.const(value, a.type.shape, a.type.frac_bits), bound=bound)

    def const_sub(self, value: float, a: RingNode, *, bound: float | None = None) -> RingNode:
        return self.sub(self.const(value, a.type.shape, a.type.frac_bits), a, bound=bound)

    def mul_int(self, a: RingNode, value: int, shift: int = 0, *, bound: float | None = None) -> RingNode:
        """a * value / 2^shift, exactly: the integers are multiplied, the scale grows by `shift`."""
        t = a.type
        type = RingType(t.shape, t.frac_bits + shift, t.bound * abs(value) / 2.0**shift, t.public)
        return self._append("mul_const", (a,), type, bound=bound, value=value, shift=shift)

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
        t = a.type
        shape = tuple(1 if d == dim else s for d, s in enumerate(t.shape))
        type = RingType(shape, t.frac_bits, t.bound * t.shape[dim], t.public)
        return self._append("sum", (a,), type, bound=bound, dim=dim)

    # ** layout **
    def reshape(self, a: RingNode, shape: tuple[int, ...]) -> RingNode:
        if math.prod(shape) != a.type.elements:
            raise InternalError(f"reshape of {a.type} to {shape}")
        return a if shape == a.type.shape else self._layout((a,), shape, kind="reshape", shape=shape)

    def permute(self, a: RingNode, dims: tuple[int, ...]) -> RingNode:
        if sorted(dims) != list(range(len(a.type.shape))):
            raise InternalError(f"permute of {a.type} by {dims}")
        if dims == tuple(range(len(dims))):
            return a
        return self._layout((a,), tuple(a.type.shape[d] for d in dims), kind="permute", dims=dims)

    def transpose(self, a: RingNode) -> RingNode:
        """Swap the last two dimensions."""
        n = len(a.type.shape)
        return self.permute(a, (*range(n - 2), n - 1, n - 2))

    def slice(self, a: RingNode, dim: int, start: int, stop: int, step: int = 1) -> RingNode:
        size = len(range(start, stop, step))
        shape = tuple(size if d == dim else s for d, s in enumerate(a.type.shape))
        if shape == a.type.shape and step > 0:
            return a
        return self._layout((a,), shape, kind="slice", dim=dim, start=start, stop=stop, step=step)

    def expand(self, a: RingNode, shape: tuple[int, ...]) -> RingNode:
        """Repeat dimensions of size 1; missing leading dimensions are added."""
        if shape == a.type.shape:
            return a
        if len(a.type.shape) < len(shape):
            a = self.reshape(a, (1,) * (len(shape) - len(a.type.shape)) + a.type.shape)
        if any(have not in (1, want) for have, want in zip(a.type.shape, shape, strict=True)):
            raise InternalError(f"expand of {a.type} to {shape}")
        return a if shape == a.type.shape else self._layout((a,), shape, kind="expand", shape=shape)

    def concat(self, parts: list[RingNode], dim: int) -> RingNode:
        first = parts[0].type
        if len(parts) == 1:
            return parts[0]
        if any(p.type.frac_bits != first.frac_bits for p in parts):
            raise InternalError("concat of different scales")
        size = sum(p.type.shape[dim] for p in parts)
        shape = tuple(size if d == dim else s for d, s in enumerate(first.shape))
        return self._layout(tuple(parts), shape, kind="concat", dim=dim)

    def _layout(self, parts: tuple[RingNode, ...], result: tuple[int, ...], /, **attrs: Attr) -> RingNode:
        type = RingType(
            result, parts[0].type.frac_bits, max(p.type.bound for p in parts), all(p.type.public for p in parts)
        )
        return self._append("layout", parts, type, bound=None, body=None, **attrs)

    # ** products **
    def mul(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        if a.type.shape != b.type.shape:
            raise InternalError(f"mul of {a.type} and {b.type} in {self.origin}")
        return self._append("mul", (a, b), self._product_type(a, b, a.type.shape, 1), bound=bound)

    def dot(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        if a.type.shape != b.type.shape:
            raise InternalError(f"dot of {a.type} and {b.type}")
        type = self._product_type(a, b, (*a.type.shape[:-1], 1), a.type.shape[-1])
        return self._append("dot", (a, b), type, bound=bound)

    def matmul(self, a: RingNode, b: RingNode, *, bound: float | None = None) -> RingNode:
        sa, sb = a.type.shape, b.type.shape
        if len(sa) != len(sb) or len(sa) < 2 or sa[:-2] != sb[:-2] or sa[-1] != sb[-2]:
            raise InternalError(f"matmul of {a.type} and {b.type} in {self.origin}")
        return self._append("matmul", (a, b), self._product_type(a, b, (*sa[:-1], sb[-1]), sa[-1]), bound=bound)

    def block_matmul(self, a: RingNode, b: RingNode, block: int, *, bound: float | None = None) -> RingNode:
        """a's last columns times the rows of b that belong to their block, the others as in `matmul`."""
        (n, inner), (rows, columns) = a.type.shape, b.type.shape
        if n % block or inner - block + n != rows:
            raise InternalError(f"block_matmul of {a.type} and {b.type} in blocks of {block} in {self.origin}")
        type = self._product_type(a, b, (n, columns), inner)
        return self._append("block_matmul", (a, b), type, bound=bound, block=block)

    def _product_type(self, a: RingNode, b: RingNode, shape: tuple[int, ...], terms: int) -> RingType:
        return RingType(
            shape,
            a.type.frac_bits + b.type.frac_bits,
            a.type.bound * b.type.bound * terms,
            a.type.public and b.type.public,
        )

    # ** non-linear **
    def rescale(self, a: RingNode, frac_bits: int, *, bound: float | None = None) -> RingNode:
        """Ask for a scale; the truncation pass decides how to reach it."""
        if a.type.frac_bits == frac_bits and bound is None:
            return a
        type = replace(a.type, frac_bits=frac_bits, bound=a.type.bound + 2.0**-frac_bits)
        return self._append("rescale", (a,), type, bound=bound, frac_bits=frac_bits)

    def lt_zero(self, a: RingNode) -> RingNode:
        """1 where a < 0, else 0; only as many bits are compared as the bound needs."""
        type = RingType(a.type.shape, 0, 1.0, a.type.public)
        return self._append("lt", (a,), type, bits=min(a.type.int_bits + 1, self.ring_bits - 1))

    def select(self, bit: RingNode, a: RingNode, b: RingNode) -> RingNode:
        type = replace(self._sum_type(a, b), bound=max(a.type.bound, b.type.bound))
        return self._append("select", (bit, a, b), replace(type, public=False))

    def reveal(self, a: RingNode, name: str) -> RingNode:
        return self._append("reveal", (a,), replace(a.type, public=False), name=name, to="client")

    # ** loops **
    def repeat(self, inits: list[RingNode], invariants: list[RingNode], body: RingGraph, count: int) -> list[RingNode]:
        carried = len(inits)
        loop = self._append(
            "repeat", (*inits, *invariants), RingType((), 0, 0.0), body=body, count=count, carried=carried
        )
        return [
            self._append("take", (loop,), replace(body[name].type, public=False), index=i)
            for i, (_, name) in enumerate(body.outputs)
        ]

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
