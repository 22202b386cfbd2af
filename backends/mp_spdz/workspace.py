"""The block of code that is being written, and where the values of a program lie.

Values stay in vector registers as long as possible; layout operations change the view only (views.py). A value is
spilled to an array of its own when a matrix product reads it or when a view has to be gathered in another order.
Weights and loop-carried values live in memory anyway.

MP-SPDZ does not keep the order of a store and a later load through computed addresses inside one basic block, so a
`break_point()` is emitted before the first read of anything stored since the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mpcc.backends.mp_spdz.views import Dims, View, dense

UNIT: tuple[int, int] = (1, 0)


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


@dataclass
class Scope:
    """Lines of one block of code and what it knows."""

    indent: str
    lines: list[str] = field(default_factory=list)
    values: dict[str, Operand] = field(default_factory=dict)
    spilled: dict[tuple[str, View], Operand] = field(default_factory=dict)
    turned: dict[tuple[str, View, tuple[int, ...]], Operand] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    iteration: str = ""


class Workspace:
    """Writes lines into the current scope and moves values between registers and memory."""

    def __init__(self) -> None:
        self.arrays: list[tuple[str, int, str]] = []  # name, elements, kind
        self.scope = Scope("")
        self.counter = 0

    def line(self, text: str) -> None:
        self.scope.lines.append(self.scope.indent + text)

    def fresh(self, stem: str = "v") -> str:
        self.counter += 1
        return f"{stem}{self.counter}"

    def array(self, elements: int, kind: str) -> str:
        name = self.fresh("m")
        self.arrays.append((name, elements, kind))
        return name

    def before_read(self, operand: Operand) -> None:
        """A break point if `operand` was stored since the last one."""
        if operand.stored in self.scope.dirty:
            self.line("break_point()")
            self.scope.dirty.clear()

    def lookup(self, name: str) -> Operand:
        return self.scope.values[name]

    # ** moving values **
    def in_register(self, operand: Operand, order: tuple[int, ...]) -> str:
        """An expression for the operand's elements as one vector with order[0] outermost."""
        view = operand.view
        if operand.is_constant:
            return str(operand.constant)
        if operand.register and view.is_dense(order):
            if view.offset == 0 and operand.size == view.elements:
                return operand.register
            return f"{operand.register}.get_vector({view.offset}, {view.elements})"
        memory = self.in_memory(operand)
        self.before_read(memory)
        dims = memory.view.walk(order) or (UNIT,)
        expression = f"load({operand.kind}, {address(memory)}, {dims_text(dims)})"
        return self.result(expression, view.shape, order, operand.kind).register

    def spelled_out(self, operand: Operand) -> Operand:
        """A constant as a register of public values; anything else as it is."""
        if operand.constant is None:
            return operand
        shape = operand.view.shape
        size = operand.view.elements
        return self.result(f"cint({operand.constant}, size={size})", shape, tuple(range(len(shape))), "cint")

    def as_shares(self, operand: Operand) -> Operand:
        """A public value as trivial shares; a secret one as it is."""
        if operand.kind == "sint":
            return operand
        operand = self.spelled_out(operand)
        order = self.common_order([operand])
        return self.result(f"sint({self.in_register(operand, order)})", operand.view.shape, order, "sint")

    def result(self, expression: str, shape: tuple[int, ...], order: tuple[int, ...], kind: str) -> Operand:
        """A new register whose elements lie densely in `order`."""
        name, view = self.fresh(), dense(shape, order)
        self.line(f"{name} = {expression}")
        return Operand(view, kind, register=name, size=view.elements)

    def in_memory(self, operand: Operand, contiguous: int | None = None) -> Operand:
        """The operand in memory; a register is spilled once, with dimension `contiguous` innermost if given."""
        if operand.address:
            return operand
        size, own = operand.size, operand.view
        packed = own.elements == size and own.is_dense(own.natural_order())
        if contiguous is not None and packed and own.strides[contiguous] != 1:
            order = (*(d for d in own.natural_order() if d != contiguous), contiguous)
            target = dense(own.shape, order)
            return self.spill(operand, target, dims_text(target.walk(own.natural_order()) or (UNIT,)))
        whole = Operand(View((size,), (1,)), operand.kind, register=operand.register, size=size)
        base = self.spill(whole, View((size,), (1,)), dims_text(((size, 1),)))
        return replace(base, view=own)

    def spill(self, operand: Operand, target: View, dims: str) -> Operand:
        key = (operand.register, target)
        if key not in self.scope.spilled:
            array = self.array(target.elements, operand.kind)
            self.line(f"store({array}.address, {operand.register}, {dims})")
            self.scope.dirty.add(array)
            self.scope.spilled[key] = Operand(target, operand.kind, address=f"{array}.address", stored=array)
        return self.scope.spilled[key]

    # ** orders **
    def common_order(self, operands: list[Operand]) -> tuple[int, ...]:
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

    def with_outermost(self, operand: Operand, dim: int) -> tuple[int, ...]:
        return (dim, *(d for d in self.common_order([operand]) if d != dim))

    def sliceable(self, operand: Operand, dim: int) -> Operand:
        """A register with `dim` outermost, so that slices are consecutive; gathered once for all slices of a value."""
        order = self.with_outermost(operand, dim)
        if not operand.register or operand.view.is_dense(order) or operand.view.shape[dim] == 1:
            return operand
        key = (operand.register, operand.view, order)
        if key not in self.scope.turned:
            register = self.in_register(operand, order)
            view = dense(operand.view.shape, order)
            self.scope.turned[key] = Operand(view, operand.kind, register=register, size=view.elements)
        return self.scope.turned[key]

    # ** what loops read and write **
    def invariant(self, operand: Operand) -> Operand:
        """What every iteration reads: in memory, unless it is a constant."""
        return operand if operand.is_constant else self.in_memory(operand)

    def carried_array(self, operand: Operand) -> Operand:
        """A row-major array of the loop's own that holds the initial value."""
        shape = operand.view.shape
        array = self.array(operand.view.elements, operand.kind)
        target = Operand(dense(shape), operand.kind, address=f"{array}.address", stored=array)
        self.line(self.store_line(operand, target))
        self.scope.dirty.add(array)
        return target

    def store_line(self, operand: Operand, target: Operand) -> str:
        """The statement that stores all of `operand` into the array of `target`."""
        order = operand.view.natural_order() if operand.register else tuple(range(len(operand.view.shape)))
        register = self.in_register(operand, order)
        return f"store({target.address}, {register}, {dims_text(target.view.walk(order) or (UNIT,))})"


def dims_text(dims: Dims) -> str:
    return "[" + ", ".join(f"({size}, {stride})" for size, stride in dims) + "]"


def address(operand: Operand) -> str:
    return operand.address if operand.view.offset == 0 else f"{operand.address} + {operand.view.offset}"


def dim_text(view: View, dim: int) -> str:
    return f"({view.shape[dim]}, {view.strides[dim]})"
