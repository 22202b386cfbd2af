"""Equal layers become one loop body.

Given   a1 b1 c1  a2 b2 c2  a3 b3 c3   (same operations, each group reading the one before and its own weights)
Result  repeat 3 { a b c }             with the weights of the three groups stacked

The longest repetition is found in the sequence of operations alone (no module names), then checked: every operand of a
group must be inside the group, carried from the group before, the same for all groups, or a weight of its own. The
size of what is emitted therefore does not grow with depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.ir import Graph, Node, Origin
from mpcc.compiler.types import attributes

MIN_GROUP = 3  # operations; rolling less saves nothing


@dataclass(frozen=True)
class _Run:
    start: int
    period: int
    count: int

    @property
    def saved(self) -> int:
        return (self.count - 1) * self.period


def roll_layers(graph: Graph) -> Graph:
    """Roll the repetition that saves most, then what is left; a graph without one is returned unchanged."""
    while (rolled := _rolled_once(graph)) is not None:
        graph = rolled
    return graph


def _rolled_once(graph: Graph) -> Graph | None:
    operations = graph.operations()
    tokens = [_token(graph, n) for n in operations]
    for run in _candidates(tokens):
        rolled = _roll(graph, operations, run)
        if rolled is not None:
            return rolled
    return None


def _token(graph: Graph, node: Node) -> tuple[object, ...]:
    """What has to be equal in every group: a weight that is public in one layer and private in another is not."""
    if node.op in ("repeat", "take"):
        return (node.name,)
    weights = tuple((graph[i].type, graph[i].visibility) if graph[i].op == "param" else None for i in node.inputs)
    return (node.op, node.attrs, node.type, node.visibility, weights)


def _candidates(tokens: list[tuple[object, ...]]) -> list[_Run]:
    """Tandem repeats, those that save most first; for equal savings the earliest start."""
    runs: list[_Run] = []
    n = len(tokens)
    for period in range(MIN_GROUP, n // 2 + 1):
        length = 0
        for i in range(n - period + 1):
            if i < n - period and tokens[i] == tokens[i + period]:
                length += 1
                continue
            if length >= period:
                begin, count = i - length, length // period + 1
                slack = length - (count - 1) * period
                runs.extend(_Run(begin + offset, period, count) for offset in range(slack + 1))
                if count > 2:  # a ragged first or last group may spoil a run: try one group less
                    runs.extend(_Run(begin + offset, period, count - 1) for offset in range(slack + period + 1))
            length = 0
    return sorted(runs, key=lambda r: (-r.saved, r.period, r.start))[:400]


@dataclass
class _Body:
    """How operands of a group resolve: each list grows as operands are met."""

    carried: dict[int, str]  # offset in the group -> initial value
    invariants: list[str]
    stacked: list[tuple[str, ...]]


def _roll(graph: Graph, operations: list[Node], run: _Run) -> Graph | None:
    groups = [operations[run.start + t * run.period : run.start + (t + 1) * run.period] for t in range(run.count)]
    position = {n.name: (t, k) for t, group in enumerate(groups) for k, n in enumerate(group)}
    body = _Body({}, [], [])
    resolved: dict[tuple[int, int], tuple[str, int]] = {}
    for k in range(run.period):
        for j in range(len(groups[0][k].inputs)):
            kind = _resolve(graph, [g[k].inputs[j] for g in groups], position, body)
            if kind is None:
                return None
            resolved[k, j] = kind
    if not body.carried or not _outputs_are_carried(graph, groups, body):
        return None
    return _assemble(graph, groups, body, resolved)


def _resolve(
    graph: Graph, names: list[str], position: dict[str, tuple[int, int]], body: _Body
) -> tuple[str, int] | None:
    """("inner" | "carried" | "invariant" | "stacked", index) of one operand, the same for every group; else None."""
    places = [position.get(name) for name in names]
    if all(p is not None and p[0] == t for t, p in enumerate(places)):
        offsets = {p[1] for p in places if p is not None}
        return ("inner", offsets.pop()) if len(offsets) == 1 else None
    later = places[1:]
    if all(p is not None and p[0] == t for t, p in enumerate(later)) and places[0] is None:
        offsets = {p[1] for p in later if p is not None}
        if len(offsets) != 1:
            return None
        offset = offsets.pop()
        if body.carried.setdefault(offset, names[0]) != names[0]:
            return None
        return ("carried", offset)
    if any(p is not None for p in places):
        return None
    if len(set(names)) == 1:
        if names[0] not in body.invariants:
            body.invariants.append(names[0])
        return ("invariant", body.invariants.index(names[0]))
    nodes = [graph[name] for name in names]
    same = len({(n.type, n.visibility) for n in nodes}) == 1
    if same and all(n.op == "param" for n in nodes):
        if tuple(names) not in body.stacked:
            body.stacked.append(tuple(names))
        return ("stacked", body.stacked.index(tuple(names)))
    return None


def _outputs_are_carried(graph: Graph, groups: list[list[Node]], body: _Body) -> bool:
    """Outside the loop only carried values of the last group may be read; carried types must be stable."""
    inside = {n.name for group in groups for n in group}
    last = {groups[-1][offset].name for offset in body.carried}
    read = {i for n in graph.nodes if n.name not in inside for i in n.inputs} | {v for _, v in graph.outputs}
    stable = all(graph[init].type == groups[0][k].type for k, init in body.carried.items())
    return stable and (read & inside) <= last


def _assemble(
    graph: Graph, groups: list[list[Node]], body: _Body, resolved: dict[tuple[int, int], tuple[str, int]]
) -> Graph:
    first, offsets = groups[0], list(body.carried)
    name = f"layers_{first[0].name}"
    arguments: dict[tuple[str, int], Node] = {}

    def source(kind: str, index: int) -> str:
        if kind == "inner":
            return first[index].name
        if kind == "carried":
            like, index = first[index], offsets.index(index)
        else:
            like = graph[body.invariants[index] if kind == "invariant" else body.stacked[index][0]]
        if (kind, index) not in arguments:
            arguments[kind, index] = _argument(f"{name}_{kind}{index}", kind, index, like)
        return arguments[kind, index].name

    inner = [
        _merged([g[k] for g in groups], tuple(source(*resolved[k, j]) for j in range(len(node.inputs))))
        for k, node in enumerate(first)
    ]
    results = tuple((str(i), first[offset].name) for i, offset in enumerate(offsets))
    loop_body = Graph((*arguments.values(), *inner), results)
    inputs = tuple(body.carried.values()) + tuple(body.invariants) + tuple(n for names in body.stacked for n in names)
    attrs = attributes(count=len(groups), carried=len(offsets), invariants=len(body.invariants))
    origin = Origin(_common_layer([g[0] for g in groups]))
    loop = Node(name, "repeat", inputs, attrs, graph[inputs[0]].type, origin, "secret", "mpc", body=loop_body)
    takes = [
        replace(groups[-1][offset], op="take", inputs=(name,), attrs=attributes(index=i), stats=())
        for i, offset in enumerate(offsets)
    ]
    return _replaced(graph, groups, [loop, *takes])


def _argument(name: str, kind: str, index: int, like: Node) -> Node:
    attrs = attributes(kind=kind, index=index)
    return replace(like, name=name, op="arg", inputs=(), attrs=attrs, range=None, stats=(), body=None)


def _replaced(graph: Graph, groups: list[list[Node]], loop: list[Node]) -> Graph:
    """Leaves first (a loop reads the weights of all groups), then operations with the loop in place of its groups."""
    inside = {n.name for group in groups for n in group}
    nodes = [n for n in graph.nodes if n.is_leaf]
    ready = False
    for node in graph.nodes:
        if node.is_leaf:
            continue
        if node.name not in inside:
            nodes.append(node)
        elif not ready:
            nodes.extend(loop)
            ready = True
    return _topological(graph.with_nodes(nodes))


def _topological(graph: Graph) -> Graph:
    """Stable order in which every operand comes first."""
    done: dict[str, Node] = {}
    waiting = list(graph.nodes)
    while waiting:
        ready = [n for n in waiting if all(i in done for i in n.inputs)]
        if not ready:
            raise InternalError(f"rolled layers wait for one another, first {waiting[0].name}")
        done[ready[0].name] = ready[0]
        waiting.remove(ready[0])
    return graph.with_nodes(list(done.values()))


def _merged(members: list[Node], inputs: tuple[str, ...]) -> Node:
    """One node for all iterations: ranges and statistics cover every one of them."""
    ranges = [m.range for m in members]
    low_high = None
    if all(r is not None for r in ranges):
        low_high = (min(r[0] for r in ranges if r), max(r[1] for r in ranges if r))
    stats: dict[str, float] = {}
    for member in members:
        for key, value in member.stats:
            pick = min if key.endswith("_min") else max
            stats[key] = pick(stats[key], value) if key in stats else value
    origin = replace(members[0].origin, layer=_common_layer(members))
    return replace(
        members[0],
        inputs=inputs,
        range=low_high,
        stats=tuple(sorted(stats.items())),
        origin=origin,
        members=tuple(m.name for m in members),
    )


def _common_layer(members: list[Node]) -> str:
    """`encoder.layer.0.x`, `encoder.layer.1.x` -> `encoder.layer.{0..1}.x`."""
    parts = [m.origin.layer.split(".") for m in members]
    if len({len(p) for p in parts}) != 1:
        return members[0].origin.layer
    columns = zip(*parts, strict=True)
    return ".".join(c[0] if len(set(c)) == 1 else f"{{{c[0]}..{c[-1]}}}" for c in columns)
