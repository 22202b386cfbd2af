"""The lower stage: the MPC region of a graph becomes ring IR.

Every operation is replaced by primitives with explicit scales (families/); loops stay loops. Scales are asked
for with `rescale`; where truncations really happen is decided afterwards by passes/ring/place_truncations.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.findings import Applied
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.lowering.applied import counted
from mpcc.compiler.lowering.context import Context, int_attr, unknown_range
from mpcc.compiler.lowering.families import RULES
from mpcc.compiler.lowering.families.state import load
from mpcc.compiler.lowering.settings import Settings
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph, RingNode, RingOrigin, RingType

# Boolean and integer inputs are whole numbers and keep scale 0: products with them need no truncation.
_WHOLE = frozenset({"bool", "i64", "i32"})


@dataclass(frozen=True)
class Lowered:
    """Ring IR that still has requests for a scale, and the approximations that it applies."""

    ring: RingGraph
    applied: tuple[Applied, ...]


def lower(graph: Graph, settings: Settings) -> Lowered:
    """Lower an MPC region whose leaves are inputs (client's or public), params and constants; outputs are revealed."""
    ctx = Context(Builder(settings.ring_bits), settings)
    values = _lower_nodes(ctx, graph, {})
    outputs = [(name, _output(ctx, graph[node], values[node], name)) for name, node in graph.outputs]
    return Lowered(ctx.b.graph(outputs), counted(ctx.applied))


def _output(ctx: Context, node: Node, value: RingNode, name: str) -> RingNode:
    """What is kept has been stored; everything else is opened to the client."""
    return value if node.op == "keep" else ctx.b.reveal(_opened(ctx, value), name)


def _opened(ctx: Context, value: RingNode) -> RingNode:
    """At the working scale, or at its own where that has fewer bits: positions, and what was rounded."""
    return value if value.type.frac_bits <= ctx.f else ctx.at_scale(value)


def _lower_nodes(ctx: Context, graph: Graph, values: dict[str, RingNode]) -> dict[str, RingNode]:
    for node in graph.nodes:
        if node.name in values:
            continue
        ctx.b.origin = RingOrigin(node.name, node.origin.layer, node.op)
        if node.op == "repeat":
            for i, value in enumerate(_lower_repeat(ctx, node, graph, values)):
                values[f"{node.name}#{i}"] = value
            continue
        if node.op == "take":
            values[node.name] = values[f"{node.inputs[0]}#{node.attr('index')}"]
            continue
        if node.is_leaf:
            values[node.name] = _leaf(ctx, node)
            continue
        rule = RULES.get(node.op)
        if rule is None:
            raise InternalError(f"no lowering rule for {node.op}")
        result = rule(ctx, node, [values[name] for name in node.inputs])
        if result.op == "store_state":
            values[node.name] = result
            continue
        if result.type.shape != node.type.shape:
            raise InternalError(f"{node.op} lowered to shape {result.type.shape}, not {node.type.shape}")
        values[node.name] = ctx.b.mark_result(result, node.name)
    return values


def _leaf(ctx: Context, node: Node) -> RingNode:
    shape, settings = node.type.shape, ctx.settings
    if node.op == "input":
        role = "public" if node.visibility == "public" else "client"
        if node.type.dtype in _WHOLE or node.attr("whole", False):
            whole = 1.0 if node.range is None else max(1.0, abs(node.range[0]), abs(node.range[1]))
            return ctx.b.input(node.name, shape, 0, whole, role)
        bound = ctx.bound(node)
        if bound is None:
            raise unknown_range(node)
        return ctx.b.input(node.name, shape, settings.frac_bits, bound, role)
    if node.op in ("param", "constant"):
        bits = 0 if node.type.dtype in _WHOLE else settings.weight_frac_bits
        public = node.visibility == "public"
        return ctx.b.param((str(node.attr("tensor")),), shape, bits, settings.weight_bound, public=public)
    if node.op == "state":
        return load(ctx, node)
    raise InternalError(f"unexpected leaf {node.op} {node.name}")


def _lower_repeat(ctx: Context, node: Node, graph: Graph, values: dict[str, RingNode]) -> list[RingNode]:
    """One body for all iterations; carried values meet at the working scale and the wider of both bounds."""
    body = node.body
    count, carried, invariants = (int_attr(node, key) for key in ("count", "carried", "invariants"))
    if body is None:
        raise InternalError(f"{node.name}: repeat without a body")
    outer = ctx.b
    inits = [ctx.at_scale(values[name]) for name in node.inputs[:carried]]
    fixed = [values[name] for name in node.inputs[carried : carried + invariants]]
    stacked = node.inputs[carried + invariants :]
    types = []
    for init, (_, result) in zip(inits, body.outputs, strict=True):
        after = ctx.bound(body[result])
        types.append(replace(init.type, public=False, bound=max(init.type.bound, after or init.type.bound)))

    inner = Context(Builder(outer.ring_bits, f"{node.name}_"), ctx.settings)
    bound_values: dict[str, RingNode] = {}
    for arg in (n for n in body.nodes if n.op == "arg"):
        index = int_attr(arg, "index")
        inner.b.origin = RingOrigin(arg.name, arg.origin.layer, "arg")
        bound_values[arg.name] = _argument(inner, arg, index, count, types, fixed, stacked, graph)
    results = _lower_nodes(inner, body, bound_values)
    ctx.applied.extend(counted(inner.applied, count))
    outputs = []
    for i, (_, name) in enumerate(body.outputs):
        value = inner.b.rescale(results[name], types[i].frac_bits)
        outputs.append((str(i), value))
    return outer.repeat(inits, fixed, inner.b.graph(outputs), count)


def _argument(
    ctx: Context,
    arg: Node,
    index: int,
    count: int,
    carried: list[RingType],
    fixed: list[RingNode],
    stacked: tuple[str, ...],
    graph: Graph,
) -> RingNode:
    kind = str(arg.attr("kind"))
    if kind == "carried":
        return ctx.b.arg("carried", index, carried[index])
    if kind == "invariant":
        return ctx.b.arg("invariant", index, fixed[index].type)
    members = [graph[name] for name in stacked[index * count : (index + 1) * count]]
    tensors = tuple(str(m.attr("tensor")) for m in members)
    bits = 0 if arg.type.dtype in _WHOLE else ctx.settings.weight_frac_bits
    public = all(m.visibility == "public" for m in members)
    return ctx.b.param(tensors, arg.type.shape, bits, ctx.settings.weight_bound, public=public)
