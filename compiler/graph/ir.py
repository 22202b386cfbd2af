"""Graph IR: what the model means.

SSA over tensors, one node per tensor operation, each with one result. A graph holds no tensor data: parameters and
constants are named, their values live in a separate store (`dict[str, torch.Tensor]`).

Leaf operations:

    input     what the client gives; attrs: role ("client" | "public"), after the cut also whole (holds integers only)
    param     a weight; attrs: tensor (canonical name in the store)
    state     what requests before this one kept, as shares that nobody owns; attrs: state, dim, entries and bound as in
              the operation keep, of which the type has the first entries
    constant  public data that the architecture implies (folded masks, positions); attrs: tensor
    arg       inside the body of a repeat only; attrs: kind ("carried" | "invariant" | "stacked"), index

`repeat` runs its `body` `count` times: inputs are the initial carried values, then the invariants, then, for each
stacked argument, one param per iteration; its results, as many as are carried, are read by `take` (attrs: index).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.types import Attr, TensorType, attributes

LEAF_OPS = frozenset({"input", "param", "state", "constant", "arg"})


@dataclass(frozen=True)
class Origin:
    """Where a node came from: dotted module path and `file.py:line` in the model's source."""

    layer: str = ""
    source: str = ""


@dataclass(frozen=True)
class Node:
    """One operation and its single result.

    `visibility` (one of VISIBILITIES) and `site` (one of SITES) are filled in by the label pass, `range` (lowest and
    highest value seen in calibration) and `stats` (what an approximation needs to know of its argument) by the ranges
    pass; `members`, inside a repeat, names the node of every iteration before it was rolled. Which of them must be
    there when is the table STAGES of compiler/graph/verify.py.
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
