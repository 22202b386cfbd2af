"""Ring IR: what MPC does.

About twenty primitives over Z_2^k; compiler/ring/rules.py lists them. Every value is an array of ring elements with an
explicit scale (`frac_bits`: the integer v stands for v / 2^frac_bits) and a magnitude bound (`bound`: the largest
|real value| it may take). Shapes of element-wise operands are equal: broadcasting is an explicit `layout`. The emulator
defines the semantics; a back end implements the primitives and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from operator import is_

from mpcc.compiler.errors import InternalError
from mpcc.compiler.fixed import HEADROOM_BITS, RING_BITS
from mpcc.compiler.types import Attr


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
        largest = self.bound * 2.0**self.frac_bits
        return math.floor(math.log2(largest)) + 1 if largest > 0 else 0

    def fits(self, ring_bits: int) -> bool:
        """Whether the ring holds every value within the bound, and the offset that signed truncation adds."""
        return self.bound * 2.0**self.frac_bits < 2.0 ** (ring_bits - HEADROOM_BITS)

    def at_scale(self, frac_bits: int) -> RingType:
        return RingType(self.shape, frac_bits, self.bound, self.public)

    def within(self, bound: float) -> RingType:
        """The same with the narrower of both bounds."""
        return RingType(self.shape, self.frac_bits, min(self.bound, bound), self.public)

    def __str__(self) -> str:
        shape = ",".join(map(str, self.shape))
        return f"{'public' if self.public else 'share'}[{shape}] q{self.frac_bits} |x|<={self.bound:g}"


@dataclass(frozen=True)
class RingOrigin:
    """The graph node a value implements and the module it stands in (`{i}` where a loop runs over layers)."""

    node: str = ""
    layer: str = ""
    graph_op: str = ""


NOWHERE = RingOrigin()


@dataclass(frozen=True)
class RingNode:
    """One primitive and its single result.

    `result_of` names the graph node whose own result this is, for traces and range checks; "" for what stands between.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: tuple[tuple[str, Attr], ...]
    type: RingType
    origin: RingOrigin = NOWHERE
    result_of: str = ""
    body: RingGraph | None = None

    def with_type(self, type: RingType) -> RingNode:
        return RingNode(self.name, self.op, self.inputs, self.attrs, type, self.origin, self.result_of, self.body)

    def with_body(self, body: RingGraph) -> RingNode:
        return self if body is self.body else replace(self, body=body)

    def attr(self, key: str, default: Attr = None) -> Attr:
        for k, v in self.attrs:
            if k == key:
                return v
        return default

    def int_attr(self, key: str) -> int:
        value = self.attr(key)
        if not isinstance(value, int):
            raise self._ill_typed(key)
        return value

    def str_attr(self, key: str) -> str:
        value = self.attr(key)
        if not isinstance(value, str):
            raise self._ill_typed(key)
        return value

    def ints_attr(self, key: str) -> tuple[int, ...]:
        value = self.attr(key)
        if not isinstance(value, tuple):
            raise self._ill_typed(key)
        return value  # type: ignore[return-value]  # the verifier looks at every element

    def strs_attr(self, key: str) -> tuple[str, ...]:
        value = self.attr(key)
        if not isinstance(value, tuple):
            raise self._ill_typed(key)
        return value  # type: ignore[return-value]

    def _ill_typed(self, key: str) -> InternalError:
        return InternalError(f"{self.name}: attribute {key} is {self.attr(key)!r}")


@dataclass(frozen=True)
class RingGraph:
    """Nodes in topological order; outputs are (name, node): revealed values, or a body's next carried values."""

    nodes: tuple[RingNode, ...]
    outputs: tuple[tuple[str, str], ...]
    ring_bits: int = RING_BITS

    @cached_property
    def by_name(self) -> dict[str, RingNode]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> RingNode:
        return self.by_name[name]

    def __iter__(self) -> Iterator[RingNode]:
        return iter(self.nodes)

    def with_nodes(self, nodes: Iterable[RingNode]) -> RingGraph:
        """The same outputs from other nodes; the graph itself where they are the same objects."""
        given = tuple(nodes)
        same = len(given) == len(self.nodes) and all(map(is_, given, self.nodes))
        return self if same else RingGraph(given, self.outputs, self.ring_bits)

    def walk(self) -> Iterator[tuple[RingNode, int]]:
        """Every node with the number of times it runs, bodies included."""
        for node in self.nodes:
            yield node, 1
            if node.body is not None:
                count = node.int_attr("count")
                for inner, times in node.body.walk():
                    yield inner, times * count
