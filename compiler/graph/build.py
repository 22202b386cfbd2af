"""The one way in which nodes are made: types follow from the operations, names are unused, attributes are sorted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import LEAF_OPS, Graph, Node, Origin
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import Attr, TensorType, attributes


class GraphBuilder:
    """Appends nodes to a graph.

    `reserved` are names that new nodes must not take, such as those of nodes that are still to be kept.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        self._reserved = set(reserved)
        self._equal: dict[tuple[object, ...], str] = {}

    def type(self, name: str) -> TensorType:
        return self.nodes[name].type

    def unused(self, stem: str, replacing: str = "") -> str:
        """`stem`, or `stem_2`, `stem_3`, ... where that is taken; a reserved name is free to whatever replaces it."""
        name, n = stem, 1
        while name in self.nodes or (name in self._reserved and name != replacing):
            n += 1
            name = f"{stem}_{n}"
        return name

    def keep(self, node: Node) -> str:
        """Append a node as it is; its name may be a reserved one."""
        if node.name in self.nodes:
            raise InternalError(f"the graph has a node {node.name} already")
        self.nodes[node.name] = node
        self._equal.setdefault(_meaning(node.op, node.inputs, node.attrs), node.name)
        return node.name

    def leaf(
        self, stem: str, op: str, type: TensorType, attrs: Mapping[str, Attr], origin: Origin | None = None
    ) -> str:
        """Append an input, param or constant; its name."""
        if op not in LEAF_OPS:
            raise InternalError(f"{op} is no leaf")
        return self.keep(Node(self.unused(stem), op, (), attributes(**attrs), type, origin or Origin()))

    def emit(
        self,
        stem: str,
        op: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Attr] | None = None,
        *,
        origin: Origin | None = None,
        replacing: str = "",
        reuse: bool = False,
    ) -> str:
        """Append an operation; its name. With `reuse` that of an equal node, where there is one.

        `replacing` is the node that it may take the name of, where it stands in for one.

        Raises:
            InternalError: no such operation, or inputs and attributes do not fit it.
        """
        given = attributes(**(attrs or {}))
        equal = self._equal.get(_meaning(op, tuple(inputs), given)) if reuse else None
        if equal is not None:
            return equal
        if op not in REGISTRY:
            raise InternalError(f"there is no operation {op}")
        type = REGISTRY[op].type([self.nodes[i].type for i in inputs], dict(given))
        return self.keep(Node(self.unused(stem, replacing), op, tuple(inputs), given, type, origin or Origin()))

    def remove(self, name: str) -> Node:
        """Take back a node that nothing reads."""
        node = self.nodes.pop(name)
        self._equal = {meaning: known for meaning, known in self._equal.items() if known != name}
        return node

    def graph(self, outputs: Iterable[tuple[str, str]]) -> Graph:
        return Graph(tuple(self.nodes.values()), tuple(outputs))


def _meaning(op: str, inputs: tuple[str, ...], attrs: tuple[tuple[str, Attr], ...]) -> tuple[object, ...]:
    """What makes two nodes equal; by text, since 1, 1.0 and True are three different attributes."""
    return op, inputs, repr(attrs)
