"""Ring IR -> MP-SPDZ source.

Values stay in vector registers as long as possible; layout operations change the view only (views.py). A value is
spilled to an array of its own when a matrix product reads it or when a view has to be gathered in another order.
Weights and loop-carried values live in memory anyway.

MP-SPDZ does not keep the order of a store and a later load through computed addresses inside one basic block, so a
`break_point()` is emitted before the first read of anything stored since the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files

import jinja2

from mpcc.backends.mp_spdz.dialects import dialect_of
from mpcc.backends.mp_spdz.views import Dims, View, dense
from mpcc.backends.mp_spdz.weights import Slot, WeightLayout, layout_weights
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.ir import RingGraph, RingNode

_UNIT: tuple[int, int] = (1, 0)
SEAL = 0x6D706363  # stored behind the weights: shares that do not belong together open to something else


@dataclass(frozen=True)
class Operand:
    """A value: a view of a register (`register`), of memory (`address`, a Python expression), or a public constant."""

    view: View
    kind: str  # "sint" | "cint"
    register: str = ""
    size: int = 0  # elements of the register
    address: str = ""
    constant: int | None = None
    stored: str = ""  # array that `address` points into, "" for weights

    @property
    def is_constant(self) -> bool:
        return self.constant is not None


@dataclass(frozen=True)
class Source:
    """The emitted program and what its streams expect."""

    text: str
    layout: WeightLayout
    inputs: tuple[str, ...]  # names of ring inputs in the order in which the client gives them
    outputs: tuple[str, ...]


@dataclass
class _Scope:
    """Lines of one block of code and what it knows."""

    indent: str
    lines: list[str] = field(default_factory=list)
    values: dict[str, Operand] = field(default_factory=dict)
    spilled: dict[tuple[str, View], Operand] = field(default_factory=dict)
    turned: dict[tuple[str, View, tuple[int, ...]], Operand] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    iteration: str = ""


def emit(
    graph: RingGraph, *, protocol: str, title: str, truncation: str, compile_hint: str, parties: int = 3
) -> Source:
    """Emit a verified, scheduled ring graph. The text holds no weight and no name from the model."""
    emitter = _Emitter(graph, dialect_of(protocol).public_products_local)
    return emitter.emit(protocol, title, truncation, compile_hint, parties)


class _Emitter:
    def __init__(self, graph: RingGraph, public_products_local: bool) -> None:
        self.graph, self.public_products_local = graph, public_products_local
        self.layout = layout_weights(graph)
        self.arrays: list[tuple[str, int, str]] = []
        self.scope = _Scope("")
        self.counter = 0
        self.public_as_shares = False
        self.input_lines: list[str] = []
        self.output_lines: list[str] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []

    def emit(self, protocol: str, title: str, truncation: str, compile_hint: str, parties: int) -> Source:
        for node in sorted((n for n in self.graph if n.op == "input"), key=lambda n: n.str_attr("name")):
            self._input(node)
        for node in self.graph:
            if node.op != "input":
                self._node(node)
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        template = environment.from_string(files(__package__).joinpath("templates/program.mpc.j2").read_text("utf-8"))
        text = template.render(
            title=title,
            protocol=protocol,
            domain=dialect_of(protocol).domain,
            truncation=truncation,
            parties=parties,
            compile_hint=compile_hint,
            nearest=truncation == "nearest",
            trunc=dialect_of(protocol).trunc,
            roles=dialect_of(protocol).roles,
            arrays=self.arrays,
            private_weights=self.layout.private.elements,
            public_weights=self.layout.public.elements,
            public_as_shares=self.public_as_shares,
            input_lines=self.input_lines,
            body_lines=self.scope.lines,
            output_lines=self.output_lines,
            seal=SEAL,
        )
        return Source(text, self.layout, tuple(self.inputs), tuple(self.outputs))

    # ** helpers **
    def _line(self, text: str) -> None:
        self.scope.lines.append(self.scope.indent + text)

    def _fresh(self, stem: str = "v") -> str:
        self.counter += 1
        return f"{stem}{self.counter}"

    def _array(self, elements: int, kind: str) -> str:
        name = self._fresh("m")
        self.arrays.append((name, elements, kind))
        return name

    def _before_read(self, operand: Operand) -> None:
        """A break point if `operand` was stored since the last one."""
        if operand.stored in self.scope.dirty:
            self._line("break_point()")
            self.scope.dirty.clear()

    def _lookup(self, name: str) -> Operand:
        return self.scope.values[name]

    # ** moving values **
    def _in_register(self, operand: Operand, order: tuple[int, ...]) -> str:
        """An expression for the operand's elements as one vector with order[0] outermost."""
        view = operand.view
        if operand.is_constant:
            return str(operand.constant)
        if operand.register and view.is_dense(order):
            if view.offset == 0 and operand.size == view.elements:
                return operand.register
            return f"{operand.register}.get_vector({view.offset}, {view.elements})"
        memory = self._in_memory(operand)
        self._before_read(memory)
        dims = memory.view.walk(order) or (_UNIT,)
        expression = f"load({operand.kind}, {_address(memory)}, {_dims(dims)})"
        return self._result(expression, view.shape, order, operand.kind).register

    def _spelled_out(self, operand: Operand) -> Operand:
        """A constant as a register of public values; anything else as it is."""
        if operand.constant is None:
            return operand
        shape = operand.view.shape
        size = operand.view.elements
        return self._result(f"cint({operand.constant}, size={size})", shape, tuple(range(len(shape))), "cint")

    def _as_shares(self, operand: Operand) -> Operand:
        """A public value as trivial shares; a secret one as it is."""
        if operand.kind == "sint":
            return operand
        operand = self._spelled_out(operand)
        order = self._common_order([operand])
        return self._result(f"sint({self._in_register(operand, order)})", operand.view.shape, order, "sint")

    def _result(self, expression: str, shape: tuple[int, ...], order: tuple[int, ...], kind: str) -> Operand:
        """A new register whose elements lie densely in `order`."""
        name, view = self._fresh(), dense(shape, order)
        self._line(f"{name} = {expression}")
        return Operand(view, kind, register=name, size=view.elements)

    def _in_memory(self, operand: Operand, contiguous: int | None = None) -> Operand:
        """The operand in memory; a register is spilled once, with dimension `contiguous` innermost if given."""
        if operand.address:
            return operand
        size, own = operand.size, operand.view
        packed = own.elements == size and own.is_dense(own.natural_order())
        if contiguous is not None and packed and own.strides[contiguous] != 1:
            order = (*(d for d in own.natural_order() if d != contiguous), contiguous)
            target = dense(own.shape, order)
            return self._spill(operand, target, _dims(target.walk(own.natural_order()) or (_UNIT,)))
        whole = Operand(View((size,), (1,)), operand.kind, register=operand.register, size=size)
        base = self._spill(whole, View((size,), (1,)), _dims(((size, 1),)))
        return replace(base, view=own)

    def _spill(self, operand: Operand, target: View, dims: str) -> Operand:
        key = (operand.register, target)
        if key not in self.scope.spilled:
            array = self._array(target.elements, operand.kind)
            self._line(f"store({array}.address, {operand.register}, {dims})")
            self.scope.dirty.add(array)
            self.scope.spilled[key] = Operand(target, operand.kind, address=f"{array}.address", stored=array)
        return self.scope.spilled[key]

    def _common_order(self, operands: list[Operand]) -> tuple[int, ...]:
        """The order that lets the largest register operand be used as it lies."""
        for operand in operands:
            order = operand.view.natural_order()
            if operand.register and operand.view.is_dense(order):
                return order
        for operand in operands:
            if not operand.is_constant and 0 not in (
                st for st, size in zip(operand.view.strides, operand.view.shape, strict=True) if size > 1
            ):
                return operand.view.natural_order()
        return tuple(range(len(operands[0].view.shape)))

    # ** nodes **
    def _node(self, node: RingNode) -> None:
        handler = getattr(self, f"_{node.op}", None)
        if handler is None:
            raise InternalError(f"the MP-SPDZ emitter does not know {node.op}")
        result = handler(node)
        if result is not None:
            self.scope.values[node.name] = result

    def _input(self, node: RingNode) -> None:
        name, elements = self._fresh("input_"), node.type.elements
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
        operands = [self._lookup(n) for n in node.inputs]
        if all(o.is_constant for o in operands):
            operands[0] = self._spelled_out(operands[0])
        order = self._common_order([o for o in operands if not o.is_constant])
        left, right = (self._in_register(o, order) for o in operands)
        kind = "sint" if any(o.kind == "sint" for o in operands) else "cint"
        return self._result(f"{left} {operator} {right}", node.type.shape, order, kind)

    def _mul_const(self, node: RingNode) -> Operand:
        operand, value = self._lookup(node.inputs[0]), node.int_attr("value")
        if value == 1:
            return operand
        if operand.constant is not None or value == 0:
            return Operand(dense(node.type.shape), "cint", constant=(operand.constant or 0) * value)
        return self._unary(node, lambda x: f"{x} * {value}")

    def _trunc(self, node: RingNode) -> Operand:
        bits, width = node.int_attr("bits"), node.int_attr("width")
        return self._unary(node, lambda x: f"trunc({x}, {bits}, {width})", shares=True)

    def _lt(self, node: RingNode) -> Operand:
        return self._unary(node, lambda x: f"less_than_zero({x}, {node.int_attr('bits')})", shares=True)

    def _unary(self, node: RingNode, expression: Callable[[str], str], *, shares: bool = False) -> Operand:
        operand = self._lookup(node.inputs[0])
        if shares:
            operand = self._as_shares(operand)
        order = self._common_order([operand])
        register = self._in_register(operand, order)
        return self._result(expression(register), node.type.shape, order, operand.kind)

    def _select(self, node: RingNode) -> Operand:
        bit, yes, no = (self._as_shares(self._lookup(n)) for n in node.inputs)
        order = self._common_order([bit, yes, no])
        b, y, n = (self._in_register(o, order) for o in (bit, yes, no))
        return self._result(f"{n} + {b} * ({y} - {n})", node.type.shape, order, "sint")

    def _sum(self, node: RingNode) -> Operand:
        operand, dim = self._spelled_out(self._lookup(node.inputs[0])), node.int_attr("dim")
        order = self._with_outermost(operand, dim)
        register = self._in_register(operand, order)
        rest = tuple(d for d in order if d != dim)
        return self._result(
            f"total({register}, {operand.view.shape[dim]})", node.type.shape, (*rest, dim), operand.kind
        )

    def _with_outermost(self, operand: Operand, dim: int) -> tuple[int, ...]:
        return (dim, *(d for d in self._common_order([operand]) if d != dim))

    def _dot(self, node: RingNode) -> Operand:
        left = self._as_shares(self._lookup(node.inputs[0]))
        right = left if node.inputs[0] == node.inputs[1] else self._as_shares(self._lookup(node.inputs[1]))
        dim = len(node.type.shape) - 1
        count = left.view.shape[dim]
        order = self._with_outermost(left, dim)
        a = self._in_register(left, order)
        b = a if right == left else self._in_register(right, order)
        rest = tuple(d for d in order if d != dim)
        expression = f"sint.dot_product(parts({a}, {count}), parts({b}, {count}))"
        return self._result(expression, node.type.shape, (*rest, dim), "sint")

    def _layout(self, node: RingNode) -> Operand:
        kind = node.str_attr("kind")
        if kind == "concat":
            return self._concat(node)
        operand = self._lookup(node.inputs[0])
        view = operand.view
        if kind == "reshape":
            reshaped = view.reshape(node.type.shape)
            if reshaped is None:
                order = tuple(range(len(view.shape)))
                register = self._in_register(operand, order)
                return Operand(dense(node.type.shape), operand.kind, register=register, size=view.elements)
            return replace(operand, view=reshaped)
        if kind == "permute":
            return replace(operand, view=view.permute(node.ints_attr("dims")))
        if kind == "slice":
            operand = self._sliceable(operand, node.int_attr("dim"))
            part = operand.view.slice(*(node.int_attr(k) for k in ("dim", "start", "stop", "step")))
            return replace(operand, view=part)
        if kind == "expand":
            return replace(operand, view=view.expand(node.type.shape))
        raise InternalError(f"unknown layout {kind}")

    def _sliceable(self, operand: Operand, dim: int) -> Operand:
        """A register with `dim` outermost, so that slices are consecutive; gathered once for all slices of a value."""
        order = self._with_outermost(operand, dim)
        if not operand.register or operand.view.is_dense(order) or operand.view.shape[dim] == 1:
            return operand
        key = (operand.register, operand.view, order)
        if key not in self.scope.turned:
            register = self._in_register(operand, order)
            view = dense(operand.view.shape, order)
            self.scope.turned[key] = Operand(view, operand.kind, register=register, size=view.elements)
        return self.scope.turned[key]

    def _concat(self, node: RingNode) -> Operand:
        operands = [self._lookup(n) for n in node.inputs]
        secret = any(o.kind == "sint" for o in operands)
        operands = [self._as_shares(o) if secret else self._spelled_out(o) for o in operands]
        dim = node.int_attr("dim")
        order = self._with_outermost(max(operands, key=lambda o: o.view.elements), dim)
        registers = [self._in_register(o, order) for o in operands]
        kind = "sint" if secret else "cint"
        return self._result(f"{kind}.concat([{', '.join(registers)}])", node.type.shape, order, kind)

    def _matmul(self, node: RingNode) -> Operand:
        left, right = (self._lookup(n) for n in node.inputs)
        rank = len(node.type.shape)
        local = self.public_products_local and left.kind != right.kind
        if local:
            a, b = (self._in_memory(self._spelled_out(operand)) for operand in (left, right))
        else:
            a, b = self._shares_in_memory(left, rank - 1), self._shares_in_memory(right, rank - 2)
        self._before_read(a)
        self._before_read(b)
        lead = node.type.shape[:-2]
        products = []
        for position in _positions(lead):
            shift = [sum(p * s for p, s in zip(position, o.view.strides, strict=False)) + o.view.offset for o in (a, b)]
            rows, inner_a = _dim(a.view, rank - 2), _dim(a.view, rank - 1)
            inner_b, columns = _dim(b.view, rank - 2), _dim(b.view, rank - 1)
            first, second = (f"{o.address} + {s}" for o, s in zip((a, b), shift, strict=True))
            if local:
                first, second = f"{a.kind}, {first}", f"{b.kind}, {second}"
            name = "public_matmul" if local else "matmul"
            products.append(f"{name}({first}, {rows}, {inner_a}, {second}, {inner_b}, {columns})")
        expression = products[0] if len(products) == 1 else f"sint.concat([{', '.join(products)}])"
        return self._result(expression, node.type.shape, tuple(range(rank)), "sint")

    def _block_matmul(self, node: RingNode) -> Operand:
        left, right = (self._lookup(n) for n in node.inputs)
        a, b = self._shares_in_memory(left, 1), self._shares_in_memory(right, 0)
        self._before_read(a)
        self._before_read(b)
        (rows, inner_a), (inner_b, columns) = ([_dim(o.view, d) for d in (0, 1)] for o in (a, b))
        first, second = (f"{o.address} + {o.view.offset}" for o in (a, b))
        given = f"{first}, {rows}, {inner_a}, {node.int_attr('block')}, {second}, {inner_b}, {columns}"
        return self._result(f"block_matmul({given})", node.type.shape, (0, 1), "sint")

    def _shares_in_memory(self, operand: Operand, contiguous: int) -> Operand:
        """A matrix operand as shares in memory."""
        if operand.kind == "cint" and operand.address.startswith("weights_public"):
            self.public_as_shares = True
            address = operand.address.replace("weights_public", "weights_public_shares", 1)
            return replace(operand, kind="sint", address=address)
        return self._in_memory(self._as_shares(operand), contiguous)

    def _reveal(self, node: RingNode) -> None:
        operand = self._as_shares(self._lookup(node.inputs[0]))
        register = self._in_register(operand, tuple(range(len(node.type.shape))))
        self.outputs.append(node.str_attr("name"))
        self.output_lines.append(f"{register}.reveal_to(0).binary_output()")

    # ** loops **
    def _repeat(self, node: RingNode) -> None:
        if node.body is None:
            raise InternalError(f"{node.name}: repeat without a body")
        carried = node.int_attr("carried")
        arrays = [self._carried_array(self._as_shares(self._lookup(name))) for name in node.inputs[:carried]]
        fixed = [self._invariant(self._lookup(name)) for name in node.inputs[carried:]]
        self._line("break_point()")
        outer = self.scope
        iteration = self._fresh("layer_")
        self._line("")
        self._line(f"@for_range({node.int_attr('count')})")
        self._line(f"def _({iteration}):")
        self.scope = _Scope(outer.indent + "    ", iteration=iteration)
        for inner in node.body:
            if inner.op == "arg":
                source = arrays if inner.str_attr("kind") == "carried" else fixed
                self.scope.values[inner.name] = source[inner.int_attr("index")]
            else:
                self._node(inner)
        stores = [
            self._store_line(self._as_shares(self._lookup(name)), t)
            for (_, name), t in zip(node.body.outputs, arrays, strict=True)
        ]
        for line in ("break_point()", *stores):
            self._line(line)
        outer.lines.extend(self.scope.lines)
        outer.lines.append("")
        self.scope = outer
        self.scope.dirty.clear()
        for i, target in enumerate(arrays):
            self.scope.values[f"{node.name}#{i}"] = target

    def _invariant(self, operand: Operand) -> Operand:
        """What every iteration reads: in memory, unless it is a constant."""
        return operand if operand.is_constant else self._in_memory(operand)

    def _carried_array(self, operand: Operand) -> Operand:
        """A row-major array of the loop's own that holds the initial value."""
        shape = operand.view.shape
        array = self._array(operand.view.elements, operand.kind)
        target = Operand(dense(shape), operand.kind, address=f"{array}.address", stored=array)
        self._line(self._store_line(operand, target))
        self.scope.dirty.add(array)
        return target

    def _store_line(self, operand: Operand, target: Operand) -> str:
        """The statement that stores all of `operand` into the array of `target`."""
        order = operand.view.natural_order() if operand.register else tuple(range(len(operand.view.shape)))
        register = self._in_register(operand, order)
        return f"store({target.address}, {register}, {_dims(target.view.walk(order) or (_UNIT,))})"

    def _take(self, node: RingNode) -> Operand:
        return self._lookup(f"{node.inputs[0]}#{node.int_attr('index')}")


def _dims(dims: Dims) -> str:
    return "[" + ", ".join(f"({size}, {stride})" for size, stride in dims) + "]"


def _address(operand: Operand) -> str:
    return operand.address if operand.view.offset == 0 else f"{operand.address} + {operand.view.offset}"


def _dim(view: View, dim: int) -> str:
    return f"({view.shape[dim]}, {view.strides[dim]})"


def _positions(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    positions: list[tuple[int, ...]] = [()]
    for size in shape:
        positions = [(*p, i) for p in positions for i in range(size)]
    return positions
