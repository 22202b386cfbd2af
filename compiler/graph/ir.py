"""Graph IR: what the model means.

SSA over tensors, one node per tensor operation, each with one result. A graph holds no tensor data: parameters and
constants are named, their values live in a separate store (`dict[str, torch.Tensor]`).

Leaf operations:

    input     a user input; attrs: role ("client" | "public")
    param     a weight, attrs: tensor (canonical name in the store)
    constant  public data that the architecture implies (folded masks, positions); attrs: tensor
    arg       inside the body of a repeat only; attrs: kind ("carried" | "invariant" | "stacked"), index

`repeat` runs its `body` `count` times: inputs are the initial carried values, then the invariants, then, for each
stacked argument, one param per iteration; its results are read by `take`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Union

from mpcc.compiler.errors import InternalError

Attr = Union[None, bool, int, float, str, tuple["Attr", ...]]

LEAF_OPS = frozenset({"input", "param", "constant", "arg"})
DTYPES = frozenset({"f32", "f64", "i64", "i32", "bool"})

# Who may read a value. The visibility of a result is the intersection of those of its operands (design, section 5).
VISIBILITIES: Mapping[str, frozenset[str]] = {
    "public": frozenset({"client", "provider", "helper"}),
    "client": frozenset({"client"}),
    "provider": frozenset({"provider"}),
    "secret": frozenset(),
}


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: str = "f32"

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def elements(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        return n


@dataclass(frozen=True)
class Origin:
    """Where a node came from: dotted module path and `file.py:line` in the model's source."""

    layer: str = ""
    source: str = ""


@dataclass(frozen=True)
class Node:
    """One operation and its single result.

    `visibility` (one of VISIBILITIES) and `site` ("compile" | "client" | "provider" | "mpc") are filled in by the
    label, infer and cut stages; `range` (lowest and highest value seen in calibration) and `stats` (what an
    approximation needs to know of its argument) by the ranges stage; `members`, inside a repeat, names the node of
    every iteration before it was rolled.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: tuple[tuple[str, Attr], ...] = ()
    type: TensorType = field(default_factory=lambda: TensorType(()))
    origin: Origin = field(default_factory=Origin)
    visibility: str = ""
    site: str = ""
    range: tuple[float, float] | None = None
    stats: tuple[tuple[str, float], ...] = ()
    members: tuple[str, ...] = ()
    body: Graph | None = None

    def attr(self, key: str, default: Attr = None) -> Attr:
        for k, v in self.attrs:
            if k == key:
                return v
        return default

    def with_attrs(self, **changes: Attr) -> Node:
        merged = dict(self.attrs) | changes
        return replace(self, attrs=attributes(**merged))

    @property
    def is_leaf(self) -> bool:
        return self.op in LEAF_OPS


def attributes(**attrs: Attr) -> tuple[tuple[str, Attr], ...]:
    """Attributes in canonical (sorted) order, as `Node.attrs` holds them."""
    return tuple(sorted(attrs.items()))


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order and the named results."""

    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        index = {node.name: node for node in self.nodes}
        if len(index) != len(self.nodes):
            raise InternalError("graph has two nodes of one name")
        object.__setattr__(self, "_index", index)

    def __getitem__(self, name: str) -> Node:
        index: dict[str, Node] = self._index  # type: ignore[attr-defined]
        return index[name]

    def __contains__(self, name: str) -> bool:
        return name in self._index  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def users(self) -> dict[str, list[str]]:
        """For every node the names of the nodes that read it (an output is not a user)."""
        result: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                result[source].append(node.name)
        return result

    def with_nodes(self, nodes: Iterator[Node] | list[Node] | tuple[Node, ...]) -> Graph:
        return Graph(tuple(nodes), self.outputs)

    def operations(self) -> list[Node]:
        """The nodes that compute something."""
        return [node for node in self.nodes if not node.is_leaf]


def without_dead_nodes(graph: Graph) -> Graph:
    """Drop what no output needs; user inputs stay, since they are part of the program's signature."""
    live = {name for _, name in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    return graph.with_nodes([n for n in graph.nodes if n.name in live or n.op == "input"])
