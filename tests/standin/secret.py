"""Secret vectors: products, comparisons, truncations, and access to memory by address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import CompilerError, StandinError
from .machine import machine
from .memory import Space
from .registers import RING_BITS, Register, cint, is_constant, regint, truncate

Int64 = NDArray[np.int64]
M = TypeVar("M", bound="InMemory")
Address = Any  # int or regint


def space_of(kind: type[Register]) -> Space:
    return machine().spaces["s" if kind.secret else "c"]


def _addresses(address: Address, size: int) -> tuple[Int64, bool, frozenset[int]]:
    """(addresses, whether they are known at compile time, accesses they depend on)."""
    if is_constant(address):
        return np.arange(address, address + size, dtype=np.int64), True, frozenset()
    if not isinstance(address, regint):
        raise CompilerError(f"{type(address).__name__} is no address")
    if address.size == size:
        return address.data, False, address.deps
    if address.size == 1:
        return int(address.data[0]) + np.arange(size, dtype=np.int64), False, address.deps
    raise CompilerError(f"mismatch of instruction and register size: {address.size} addresses for {size} elements")


class InMemory(Register):
    """A type that lives in memory: sint and the public `cint`."""

    @classmethod
    def load_mem(cls: type[M], address: Address, size: int | None = None) -> M:
        """The elements at `address`: a vector of addresses, or the first one and `size`."""
        if size is None:
            size = address.size if isinstance(address, regint) else 1
        where, direct, deps = _addresses(address, size)
        access = machine().access(where, write=False, direct=direct)
        machine().count("load", size)
        return cls._make(space_of(cls).load(access, machine().budget), deps | {access.id})

    def store_in_mem(self, address: Address) -> None:
        """Store at a vector of addresses, or from one address on."""
        where, direct, deps = _addresses(address, self.size)
        access = machine().access(where, write=True, direct=direct)
        machine().count("store", self.size)
        deps = machine().live_deps(deps | self.deps)
        space_of(type(self)).store(access, self.data, deps, machine().budget)

    @classmethod
    def Array(cls, size: int) -> Any:
        from .array import Array

        return Array(size, cls)


class public(InMemory, cint):
    """`cint` as programs know it."""


public.__name__ = "cint"


class sint(InMemory):
    """Secret ring elements."""

    rank = 2
    secret = True

    def result_type(self) -> type[Register]:
        return sint

    @classmethod
    def get_input_from(cls, player: int, binary: bool = False, size: int = 1) -> sint:
        """The next `size` integers of the player's binary input."""
        if not binary:
            raise CompilerError("text input is not provided: use binary=True")
        if not is_constant(player):
            raise CompilerError("the player has to be known at compile time")
        machine().count("input", size)
        return sint._make(machine().read_input(player, size), frozenset())

    @classmethod
    def write_to_file(cls, shares: sint, position: Any = None) -> None:
        """Store shares at `position` (in elements; at the end without one)."""
        old: Int64 = machine().persistence.get("sint", np.zeros(0, dtype=np.int64))
        start = old.size if position is None else _position(position)
        if not 0 <= start <= old.size:
            raise StandinError(f"position {start} is beyond the {old.size} stored shares")
        machine().persistence["sint"] = np.concatenate([old[:start], shares.data, old[start + shares.size :]])

    @classmethod
    def read_from_file(cls, start: Any, n_items: int = 1, size: int = 1) -> tuple[regint, list[sint]]:
        """Load shares from `start` (in elements) on: (where the next ones start, a list of one vector)."""
        stored, first = machine().persistence.get("sint"), _position(start)
        if stored is None:
            raise StandinError("Persistence not found")
        if n_items != 1:
            raise CompilerError("read_from_file is provided for one vector only")
        values = stored[first : first + size] if first >= 0 else stored[:0]
        if values.size != size:
            raise StandinError(f"{stored.size} shares are stored, {size} are read from {first} on")
        return regint(first + size), [sint._make(values, frozenset())]

    def get_vector(self, base: int = 0, size: int | None = None, skip: int = 1) -> Any:
        """`size` elements from `base` on, every `skip`-th."""
        if skip == 1:
            return super().get_vector(base, size)
        count = self.size - base if size is None else size
        last = base + skip * (count - 1)
        if not (0 <= base < self.size and 0 <= last < self.size and count >= 1):
            raise CompilerError(f"get_vector({base}, {count}, {skip}) of a vector of size {self.size}")
        index = base + skip * np.arange(count)
        return sint._make(self.data[index], self.deps)

    def sum(self) -> sint:
        """The sum of all elements."""
        machine().count("add", self.size)
        return sint._make(np.atleast_1d(self.data.sum()), self.deps)

    def round(self, k: int, m: int, nearest: bool = False, signed: bool = True) -> sint:
        """self / 2^m for k-bit numbers: to nearest (half up), or up with the probability of the fraction."""
        if not is_constant(k) or not is_constant(m) or not 0 <= m < k <= RING_BITS:
            raise CompilerError(f"round({k}, {m}) in a ring of {RING_BITS} bits")
        if m == 0:
            return self
        machine().count("trunc_nearest" if nearest else "trunc", self.size)
        rng = None if nearest or machine().nearest else machine().rng
        return sint._make(truncate(self.data, k, m, signed, rng), self.deps)

    def less_than(self, other: Any, bit_length: int | None = None) -> sintbit:
        """1 where self < other, else 0: right if -2^bit_length <= self - other < 2^bit_length."""
        if bit_length is None:
            raise CompilerError("less_than needs a bit length here")
        if not is_constant(other) and not isinstance(other, (sint, cint, regint)):
            raise CompilerError(f"comparison with {type(other).__name__}")
        difference = self._operate(other, np.subtract, "add")
        result = sintbit(size=difference.size)
        ltz(result, difference, bit_length + 1)
        return result

    def reveal(self) -> public:
        machine().count("reveal", self.size)
        return public._make(self.data, self.deps)

    def reveal_to(self, player: int) -> personal:
        if not is_constant(player):
            raise CompilerError("the player has to be known at compile time")
        machine().count("reveal_to", self.size)
        return personal(player, public._make(self.data, self.deps))

    @classmethod
    def dot_product(cls, x: Iterable[Any], y: Any) -> sint:
        """sum x[i] * y[i], element by element for lists of vectors; a single number for two vectors."""
        if isinstance(x, sint) and isinstance(y, sint):
            if x.size != y.size:
                raise CompilerError(f"dot product of {x.size} and {y.size} elements")
            machine().count("dot_product", 1)
            return sint._make(np.atleast_1d((x.data * y.data).sum()), x.deps | y.deps)
        left, right = list(x), list(y)
        if len(left) != len(right) or not left:
            raise CompilerError(f"dot product of {len(left)} and {len(right)} vectors")
        if not all(isinstance(v, sint) and v.size == left[0].size for v in left + right):
            raise CompilerError("dot product of vectors that are not sint or differ in size")
        total = np.zeros(left[0].size, dtype=np.int64)
        for a, b in zip(left, right, strict=True):
            total += a.data * b.data
        machine().count("dot_product", left[0].size)
        return sint._make(total, frozenset().union(*(v.deps for v in left + right)))

    @classmethod
    def direct_matrix_mul(
        cls,
        A: Address,
        B: Address,
        n: int | None,
        m: int,
        l: int,  # noqa: E741
        reduce: Any = None,
        indices: list[regint] | None = None,
    ) -> sint:
        """result[i, j] = sum_k mem[A + rows_a[i] * m + cols_a[k]] * mem[B + rows_b[k] * l + cols_b[j]], row by row."""
        if not is_constant(m) or not is_constant(l):
            raise CompilerError("the numbers of columns have to be known at compile time")
        if indices is None:
            if n is None:
                raise CompilerError("direct_matrix_mul needs n or indices")
            indices = [regint.inc(size) for size in (n, m, m, l)]
        if len(indices) != 4 or not all(isinstance(index, regint) for index in indices):
            raise CompilerError("indices are four regint vectors")
        rows_a, columns_a, rows_b, columns_b = indices
        if columns_a.size != rows_b.size:
            raise CompilerError(f"{columns_a.size} columns of the first factor, {rows_b.size} rows of the second")
        a, deps_a = _factor(A, rows_a, columns_a, m)
        b, deps_b = _factor(B, rows_b, columns_b, l)
        result = np.matmul(a, b).ravel()
        machine().count("matmul", result.size)
        return sint._make(result, deps_a | deps_b)


def _position(value: Any) -> int:
    """A position in a file of shares (int or regint)."""
    if is_constant(value):
        return int(value)
    if isinstance(value, regint) and value.size == 1:
        return int(value.data[0])
    raise CompilerError("a position is a public integer")


def _factor(base: Address, rows: regint, columns: regint, width: int) -> tuple[Int64, frozenset[int]]:
    """One operand of a matrix product, read from memory; MP-SPDZ takes its addresses for run-time values."""
    start = regint(base) if is_constant(base) else base
    if not isinstance(start, regint) or start.size != 1:
        raise CompilerError("a base address is a single int or regint")
    where = int(start.data[0]) + rows.data[:, None] * width + columns.data[None, :]
    access = machine().access(where.ravel(), write=False, direct=False)
    values = space_of(sint).load(access, machine().budget)
    return values.reshape(where.shape), start.deps | rows.deps | columns.deps | {access.id}


class sintbit(sint):
    """A secret bit; sums and products with it are sint."""


def ltz(result: sint, a: sint, k: int) -> None:
    """result = 1 where the k-bit number a is negative, else 0 (bits above k are ignored)."""
    if not isinstance(result, sint) or not isinstance(a, sint):
        raise CompilerError("LTZ needs secret registers")
    if not is_constant(k) or not 2 <= k <= RING_BITS:
        raise CompilerError(f"comparison of {k} bits in a ring of {RING_BITS} bits")
    machine().count("less_than", a.size)
    result.write((a.data >> np.int64(k - 1)) & np.int64(1), a.deps)


class personal:
    """A value that one player knows."""

    def __init__(self, player: int, value: public) -> None:
        self.player, self._v = player, value

    @property
    def size(self) -> int:
        return self._v.size

    def binary_output(self) -> None:
        machine().write_private(self.player, self._v.data)
