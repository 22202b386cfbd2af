"""Ring IR -> MP-SPDZ source: one method per primitive; workspace.py says where values lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import jinja2

from mpcc.backends.mp_spdz.dialects import SEAL, dialect_of
from mpcc.backends.mp_spdz.views import dense
from mpcc.backends.mp_spdz.weights import Slot, WeightLayout, layout_together
from mpcc.backends.mp_spdz.workspace import Operand, Scope, Workspace, dim_text
from mpcc.compiler.errors import InternalError
from mpcc.compiler.protocols import MpSpdzProtocol, protocol_of
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.states import states_of


@dataclass(frozen=True)
class Entry:
    """What one program of a source takes and gives: the names of its inputs, in the order in which the client gives
    them, of its outputs, and where its weights stand.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layout: WeightLayout


@dataclass(frozen=True)
class Source:
    """The emitted text and what its streams expect; a request chooses one of its entries, where there are several."""

    text: str
    entries: tuple[Entry, ...]

    @property
    def only(self) -> Entry:
        """The entry of a source of one program."""
        (entry,) = self.entries
        return entry

    @property
    def layout(self) -> WeightLayout:
        return self.only.layout

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.only.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.only.outputs


def emit(graph: RingGraph, *, protocol: str, truncation: str, title: str = "mpcc program") -> Source:
    """Emit a verified, scheduled ring graph; whoever has it makes the same text, byte for byte.

    The text holds no weight and no name from the model.
    """
    return emit_together([graph], protocol=protocol, truncation=truncation, title=title)


def emit_together(
    graphs: Sequence[RingGraph], *, protocol: str, truncation: str, title: str = "mpcc program"
) -> Source:
    """One source of several programs, which share weights and states in a session. As `emit`."""
    states = states_of(*graphs)
    layouts = layout_together(graphs)
    kept = {state.name: f"state_{i}" for i, state in enumerate(states.values())}
    facts = protocol_of(protocol)
    arrays = [(kept[state.name], state.elements, "sint") for state in states.values()]
    parts: list[_Emitter] = []
    for graph, layout in zip(graphs, layouts, strict=True):
        part = _Emitter(graph, facts, truncation, layout, kept)
        part.counter = parts[-1].counter if parts else 0  # no name means two things
        part.write()
        parts.append(part)
        arrays += part.arrays
    text = _template().render(
        title=title,
        protocol=facts.name,
        domain=facts.domain,
        truncation=truncation,
        parties=facts.parties,
        compile_hint=f"compile.py {' '.join(dialect_of(protocol).compile_options)}",
        nearest=truncation == "nearest",
        rounds_outputs=any(part.rounds_outputs for part in parts),
        trunc=dialect_of(facts.name).trunc,
        roles=facts.roles,
        arrays=arrays,
        private_weights=layouts[0].private.elements,
        public_weights=layouts[0].public.elements,
        public_as_shares=any(part.public_as_shares for part in parts),
        states=tuple(kept.values()),
        parts=parts,
        seal=SEAL,
    )
    return Source(text, tuple(Entry(tuple(p.inputs), tuple(p.outputs), p.layout) for p in parts))


class _Emitter(Workspace):
    """Writes the lines of one program."""

    def __init__(
        self,
        graph: RingGraph,
        protocol: MpSpdzProtocol,
        truncation: str,
        layout: WeightLayout,
        kept: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.graph, self.protocol, self.truncation = graph, protocol, truncation
        self.layout, self.kept = layout, kept
        self.public_as_shares = False
        self.rounds_outputs = False  # in a program whose truncations are probabilistic, some are to nearest
        self.input_lines: list[str] = []
        self.output_lines: list[str] = []
        self.state_lines: list[str] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []

    @property
    def body_lines(self) -> list[str]:
        """What is between the inputs and the outputs. States change after everything else: loads see the old ones."""
        return [*self.scope.lines, *(["break_point()", *self.state_lines] if self.state_lines else [])]

    def write(self) -> None:
        """Fill the lines."""
        for node in sorted((n for n in self.graph if n.op == "input"), key=lambda n: n.str_attr("name")):
            self._input(node)
        for node in self.graph:
            if node.op != "input":
                self._node(node)

    # ** nodes **
    def _node(self, node: RingNode) -> None:
        handler = getattr(self, f"_{node.op}", None)
        if handler is None:
            raise InternalError(f"the MP-SPDZ emitter does not know {node.op}")
        result = handler(node)
        if result is not None:
            self.scope.values[node.name] = result

    def _input(self, node: RingNode) -> None:
        name, elements = self.fresh("input_"), node.type.elements
        self.inputs.append(node.str_attr("name"))
        self.input_lines.append(f"{name} = share(0, {elements})")
        kind = "sint"
        if node.type.public:
            self.input_lines.append(f"{name}_public = open_to_all({name})")
            name, kind = f"{name}_public", "cint"
        self.scope.values[node.name] = Operand(dense(node.type.shape), kind, address=f"{name}.address")

    def _param(self, node: RingNode) -> Operand:
        slot = self.layout.region(node).slots[node.name]
        array = "weights_public" if node.type.public else "weights"
        return Operand(dense(node.type.shape), "cint" if node.type.public else "sint", address=self._slot(array, slot))

    def _slot(self, array: str, slot: Slot) -> str:
        address = f"{array}.address + {slot.base}"
        return f"{address} + {self.scope.iteration} * {slot.block}" if slot.block and self.scope.iteration else address

    def _const(self, node: RingNode) -> Operand:
        return Operand(dense(node.type.shape), "cint", constant=node.int_attr("value"))

    def _add(self, node: RingNode) -> Operand:
        return self._elementwise(node, "+")

    def _sub(self, node: RingNode) -> Operand:
        return self._elementwise(node, "-")

    def _mul(self, node: RingNode) -> Operand:
        return self._elementwise(node, "*")

    def _elementwise(self, node: RingNode, operator: str) -> Operand:
        operands = [self.lookup(n) for n in node.inputs]
        if all(o.is_constant for o in operands):
            operands[0] = self.spelled_out(operands[0])
        order = self.common_order([o for o in operands if not o.is_constant])
        left, right = (self.in_register(o, order) for o in operands)
        kind = "sint" if any(o.kind == "sint" for o in operands) else "cint"
        return self.result(f"{left} {operator} {right}", node.type.shape, order, kind)

    def _mul_const(self, node: RingNode) -> Operand:
        operand, value = self.lookup(node.inputs[0]), node.int_attr("value")
        if value == 1:
            return operand
        if operand.constant is not None or value == 0:
            return Operand(dense(node.type.shape), "cint", constant=(operand.constant or 0) * value)
        return self._unary(node, lambda x: f"{x} * {value}")

    def _trunc(self, node: RingNode) -> Operand:
        bits, width = node.int_attr("bits"), node.int_attr("width")
        alone = node.attr("variant") == "nearest" and self.truncation != "nearest"
        self.rounds_outputs |= alone
        name = "nearest" if alone else "trunc"
        return self._unary(node, lambda x: f"{name}({x}, {bits}, {width})", shares=True)

    def _lt(self, node: RingNode) -> Operand:
        return self._unary(node, lambda x: f"less_than_zero({x}, {node.int_attr('bits')})", shares=True)

    def _unary(self, node: RingNode, expression: Callable[[str], str], *, shares: bool = False) -> Operand:
        operand = self.lookup(node.inputs[0])
        if shares:
            operand = self.as_shares(operand)
        order = self.common_order([operand])
        register = self.in_register(operand, order)
        return self.result(expression(register), node.type.shape, order, operand.kind)

    def _select(self, node: RingNode) -> Operand:
        bit, yes, no = (self.as_shares(self.lookup(n)) for n in node.inputs)
        order = self.common_order([bit, yes, no])
        b, y, n = (self.in_register(o, order) for o in (bit, yes, no))
        return self.result(f"{n} + {b} * ({y} - {n})", node.type.shape, order, "sint")

    def _sum(self, node: RingNode) -> Operand:
        operand, dim = self.spelled_out(self.lookup(node.inputs[0])), node.int_attr("dim")
        order = self.with_outermost(operand, dim)
        register = self.in_register(operand, order)
        rest = tuple(d for d in order if d != dim)
        return self.result(f"total({register}, {operand.view.shape[dim]})", node.type.shape, (*rest, dim), operand.kind)

    def _dot(self, node: RingNode) -> Operand:
        left = self.as_shares(self.lookup(node.inputs[0]))
        right = left if node.inputs[0] == node.inputs[1] else self.as_shares(self.lookup(node.inputs[1]))
        dim = len(node.type.shape) - 1
        count = left.view.shape[dim]
        order = self.with_outermost(left, dim)
        a = self.in_register(left, order)
        b = a if right == left else self.in_register(right, order)
        rest = tuple(d for d in order if d != dim)
        expression = f"sint.dot_product(parts({a}, {count}), parts({b}, {count}))"
        return self.result(expression, node.type.shape, (*rest, dim), "sint")

    def _layout(self, node: RingNode) -> Operand:
        kind = node.str_attr("kind")
        if kind == "concat":
            return self._concat(node)
        operand = self.lookup(node.inputs[0])
        view = operand.view
        if kind == "reshape":
            reshaped = view.reshape(node.type.shape)
            if reshaped is None:
                order = tuple(range(len(view.shape)))
                register = self.in_register(operand, order)
                return Operand(dense(node.type.shape), operand.kind, register=register, size=view.elements)
            return replace(operand, view=reshaped)
        if kind == "permute":
            return replace(operand, view=view.permute(node.ints_attr("dims")))
        if kind == "slice":
            operand = self.sliceable(operand, node.int_attr("dim"))
            part = operand.view.slice(*(node.int_attr(k) for k in ("dim", "start", "stop", "step")))
            return replace(operand, view=part)
        if kind == "expand":
            return replace(operand, view=view.expand(node.type.shape))
        raise InternalError(f"unknown layout {kind}")

    def _concat(self, node: RingNode) -> Operand:
        operands = [self.lookup(n) for n in node.inputs]
        secret = any(o.kind == "sint" for o in operands)
        operands = [self.as_shares(o) if secret else self.spelled_out(o) for o in operands]
        dim = node.int_attr("dim")
        order = self.with_outermost(max(operands, key=lambda o: o.view.elements), dim)
        registers = [self.in_register(o, order) for o in operands]
        kind = "sint" if secret else "cint"
        return self.result(f"{kind}.concat([{', '.join(registers)}])", node.type.shape, order, kind)

    def _matmul(self, node: RingNode) -> Operand:
        left, right = (self.lookup(n) for n in node.inputs)
        rank = len(node.type.shape)
        local = self.protocol.public_products_local and left.kind != right.kind
        if local:
            a, b = (self.in_memory(self.spelled_out(operand)) for operand in (left, right))
        else:
            a, b = self._shares_in_memory(left, rank - 1), self._shares_in_memory(right, rank - 2)
        self.before_read(a)
        self.before_read(b)
        lead = node.type.shape[:-2]
        products = []
        for position in _positions(lead):
            shift = [sum(p * s for p, s in zip(position, o.view.strides, strict=False)) + o.view.offset for o in (a, b)]
            rows, inner_a = dim_text(a.view, rank - 2), dim_text(a.view, rank - 1)
            inner_b, columns = dim_text(b.view, rank - 2), dim_text(b.view, rank - 1)
            first, second = (f"{o.address} + {s}" for o, s in zip((a, b), shift, strict=True))
            if local:
                first, second = f"{a.kind}, {first}", f"{b.kind}, {second}"
            name = "public_matmul" if local else "matmul"
            products.append(f"{name}({first}, {rows}, {inner_a}, {second}, {inner_b}, {columns})")
        expression = products[0] if len(products) == 1 else f"sint.concat([{', '.join(products)}])"
        return self.result(expression, node.type.shape, tuple(range(rank)), "sint")

    def _block_matmul(self, node: RingNode) -> Operand:
        left, right = (self.lookup(n) for n in node.inputs)
        a, b = self._shares_in_memory(left, 1), self._shares_in_memory(right, 0)
        self.before_read(a)
        self.before_read(b)
        (rows, inner_a), (inner_b, columns) = ([dim_text(o.view, d) for d in (0, 1)] for o in (a, b))
        first, second = (f"{o.address} + {o.view.offset}" for o in (a, b))
        given = f"{first}, {rows}, {inner_a}, {node.int_attr('block')}, {second}, {inner_b}, {columns}"
        return self.result(f"block_matmul({given})", node.type.shape, (0, 1), "sint")

    def _shares_in_memory(self, operand: Operand, contiguous: int) -> Operand:
        """A matrix operand as shares in memory."""
        if operand.kind == "cint" and operand.address.startswith("weights_public"):
            self.public_as_shares = True
            address = operand.address.replace("weights_public", "weights_public_shares", 1)
            return replace(operand, kind="sint", address=address)
        return self.in_memory(self.as_shares(operand), contiguous)

    def _reveal(self, node: RingNode) -> None:
        operand = self.as_shares(self.lookup(node.inputs[0]))
        register = self.in_register(operand, tuple(range(len(node.type.shape))))
        self.outputs.append(node.str_attr("name"))
        self.output_lines.append(f"{register}.reveal_to(0).binary_output()")

    # ** states **
    def _load_state(self, node: RingNode) -> Operand:
        return Operand(dense(node.type.shape), "sint", address=f"{self.kept[node.str_attr('state')]}.address")

    def _store_state(self, node: RingNode) -> None:
        value, position = (self.lookup(name) for name in node.inputs)
        register = self.in_register(self.as_shares(value), tuple(range(len(node.type.shape))))
        row = node.type.elements // node.type.shape[0]
        first = self.in_register(position, tuple(range(len(position.view.shape))))
        array = self.kept[node.str_attr("state")]
        self.state_lines.append(f"keep({array}, {row}, {first}, {register})")

    # ** loops **
    def _repeat(self, node: RingNode) -> None:
        if node.body is None:
            raise InternalError(f"{node.name}: repeat without a body")
        carried = node.int_attr("carried")
        arrays = [self.carried_array(self.as_shares(self.lookup(name))) for name in node.inputs[:carried]]
        fixed = [self.invariant(self.lookup(name)) for name in node.inputs[carried:]]
        self.line("break_point()")
        outer = self.scope
        iteration = self.fresh("layer_")
        self.line("")
        self.line(f"@for_range({node.int_attr('count')})")
        self.line(f"def _({iteration}):")
        self.scope = Scope(outer.indent + "    ", iteration=iteration)
        for inner in node.body:
            if inner.op == "arg":
                source = arrays if inner.str_attr("kind") == "carried" else fixed
                self.scope.values[inner.name] = source[inner.int_attr("index")]
            else:
                self._node(inner)
        stores = [
            self.store_line(self.as_shares(self.lookup(name)), t)
            for (_, name), t in zip(node.body.outputs, arrays, strict=True)
        ]
        for line in ("break_point()", *stores):
            self.line(line)
        outer.lines.extend(self.scope.lines)
        outer.lines.append("")
        self.scope = outer
        self.scope.dirty.clear()
        for i, target in enumerate(arrays):
            self.scope.values[f"{node.name}#{i}"] = target

    def _take(self, node: RingNode) -> Operand:
        return self.lookup(f"{node.inputs[0]}#{node.int_attr('index')}")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(files(__package__).joinpath("templates/program.mpc.j2").read_text("utf-8"))


def _positions(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    positions: list[tuple[int, ...]] = [()]
    for size in shape:
        positions = [(*p, i) for p in positions for i in range(size)]
    return positions
