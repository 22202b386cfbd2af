"""Registers: vectors of ring elements that are public (regint, cint) or secret (sint), with MP-SPDZ's operators.

Nothing may depend on a register's value while the program is compiled, so a register has no truth value, no int() and
no comparison operators. A register that was made in a loop body is dead after that run of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import CompilerError
from .machine import machine

Int64 = NDArray[np.int64]
R = TypeVar("R", bound="Register")
RING_BITS = 64


def is_constant(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def wrap(value: int) -> np.int64:
    """A compile-time integer as a ring element; it has to fit the ring."""
    if value.bit_length() >= RING_BITS:
        raise CompilerError(f"constant of {value.bit_length()} bits does not fit the ring")
    return np.int64((value + 2**63) % 2**64 - 2**63)


class Register:
    """A vector of `size` ring elements; without a value until an instruction writes it."""

    rank: ClassVar[int] = 0  # operators return the type of the operand of higher rank
    secret: ClassVar[bool] = False
    __array_ufunc__ = None  # numpy must not take a register for a sequence

    def __init__(self, val: Any = None, size: int | None = None) -> None:
        self.deps: frozenset[int] = frozenset()
        self._frame = machine().frame
        self._data: Int64 | None = None
        if isinstance(val, (list, tuple)):
            size = self._agree(size, len(val))
            if not all(is_constant(x) for x in val):
                raise CompilerError("a list of registers is no initial value here")
            self._data = np.array([wrap(x) for x in val], dtype=np.int64)
        elif isinstance(val, Register):
            if val.rank > self.rank:
                raise CompilerError(f"cannot convert {type(val).__name__} to {type(self).__name__}")
            size = self._agree(size, val.size)
            self._data, self.deps = val.data, val.deps
        elif is_constant(val):
            self._data = np.full(1 if size is None else size, wrap(val), dtype=np.int64)
        elif val is not None:
            raise CompilerError(f"cannot convert {type(val).__name__} to {type(self).__name__}")
        self.size: int = 1 if size is None else size
        if not is_constant(self.size) or self.size < 1:
            raise CompilerError(f"vector of size {self.size}")

    @staticmethod
    def _agree(size: int | None, have: int) -> int:
        if size not in (None, have):
            raise CompilerError(f"mismatch in vector size: {size} and {have}")
        return have

    @property
    def data(self) -> Int64:
        """The value, checked for being there."""
        if not self._frame.alive:
            raise CompilerError(f"{type(self).__name__} of a loop body is used outside that run of the body")
        if self._data is None:
            raise CompilerError(f"{type(self).__name__} is read before it is written")
        return self._data

    @classmethod
    def _make(cls: type[R], data: Int64, deps: frozenset[int]) -> R:
        result = cls(size=data.size)
        result._data, result.deps = data, machine().live_deps(deps)
        return result

    def write(self, data: Int64, deps: frozenset[int]) -> None:
        """Set the value, as an instruction with this register as its result does."""
        if data.size != self.size:
            raise CompilerError(f"mismatch of instruction and register size: {data.size} and {self.size}")
        self._data, self.deps = data, machine().live_deps(deps)

    # ** operators **
    def result_type(self) -> type[Register]:
        return type(self)

    def _operate(self, other: Any, function: Callable[[Any, Any], Any], name: str) -> Any:
        """function(self, other) element by element; a register of size 1 goes with any size."""
        kind = self.result_type()
        if is_constant(other):
            machine().count(name, self.size)
            return kind._make(np.asarray(function(self.data, wrap(other))), self.deps)
        if not isinstance(other, Register):
            return NotImplemented
        if other.rank > kind.rank:
            kind = other.result_type()
        if self.size != other.size and min(self.size, other.size) != 1:
            raise CompilerError(f"different vector sizes of operands: {self.size}/{other.size}")
        result = np.asarray(function(self.data, other.data))
        machine().count(name, result.size)
        return kind._make(result, self.deps | other.deps)

    def __add__(self, other: Any) -> Any:
        return self if is_constant(other) and other == 0 else self._operate(other, np.add, "add")

    def __sub__(self, other: Any) -> Any:
        return self._operate(other, np.subtract, "add")

    def __rsub__(self, other: Any) -> Any:
        return self._operate(other, lambda a, b: np.subtract(b, a), "add")

    def __mul__(self, other: Any) -> Any:
        if is_constant(other) and other in (0, 1):
            return self if other else 0  # MP-SPDZ returns the Python integer 0 here
        secret = self.secret and isinstance(other, Register) and other.secret
        return self._operate(other, np.multiply, "mul" if secret else "mul_public")

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Any:
        return 0 - self

    # ** parts **
    def __len__(self) -> int:
        return self.size

    def __getitem__(self: R, index: int) -> R:
        if not is_constant(index) or not -self.size <= index < self.size:
            raise IndexError(f"index {index!r} of a vector of size {self.size}")
        return self._make(self.data[index : index + 1 or None], self.deps)

    def get_vector(self: R, base: int = 0, size: int | None = None) -> R:
        """`size` elements from `base` on."""
        size = self.size - base if size is None else size
        if not is_constant(base) or not is_constant(size) or base < 0 or size < 1 or base + size > self.size:
            raise CompilerError(f"get_vector({base}, {size}) of a vector of size {self.size}")
        return self if size == self.size else self._make(self.data[base : base + size], self.deps)

    @classmethod
    def concat(cls: type[R], parts: Iterable[R]) -> R:
        """One vector of all parts in order."""
        registers = list(parts)
        if not registers or not all(isinstance(part, cls) for part in registers):
            raise CompilerError(f"concat needs {cls.__name__} vectors")
        deps = frozenset[int]().union(*(part.deps for part in registers))
        return cls._make(np.concatenate([part.data for part in registers]), deps)

    # ** what run-time values do not have **
    def _no_truth(self, *_: Any) -> Any:
        raise CompilerError(f"{type(self).__name__} has no value while the program is compiled")

    __bool__ = __int__ = __float__ = __index__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _no_truth
    __hash__ = object.__hash__


class regint(Register):
    """Public 64-bit integers: addresses and loop counters."""

    rank = 0

    def __init__(self, val: Any = None, size: int | None = None) -> None:
        super().__init__(val.as_regint() if isinstance(val, cint) else val, size)

    @classmethod
    def inc(cls, size: int, base: Any = 0, step: int = 1, repeat: int = 1, wrap: int | None = None) -> regint:
        """base + step * ((i // repeat) mod wrap) for i in 0 .. size - 1."""
        start = base if isinstance(base, regint) else cls(base)
        if start.size != 1:
            raise CompilerError("inc needs a base of size 1")
        if not all(is_constant(x) for x in (size, step, repeat, 0 if wrap is None else wrap)):
            raise CompilerError("inc needs compile-time integers")
        if size < 1 or repeat < 1 or (wrap is not None and wrap < 1):
            raise CompilerError(f"inc({size}, ..., repeat={repeat}, wrap={wrap})")
        index = np.arange(size, dtype=np.int64) // repeat % (size if wrap is None else wrap)
        return cls._make(start.data + step * index, start.deps)

    def _compared(self, other: Any, function: Callable[[Any, Any], Any]) -> regint:
        if not is_constant(other) and not isinstance(other, regint):
            raise CompilerError(f"comparison with {type(other).__name__}")
        result: regint = self._operate(other, lambda a, b: function(a, b).astype(np.int64), "less_than_public")
        return result

    def __eq__(self, other: object) -> regint:  # type: ignore[override]
        """1 where equal, else 0 (regint)."""
        return self._compared(other, np.equal)

    def __lt__(self, other: Any) -> regint:
        return self._compared(other, np.less)

    def __gt__(self, other: Any) -> regint:
        return self._compared(other, np.greater)

    __hash__ = Register.__hash__


class cint(Register):
    """Public ring elements."""

    rank = 1

    def as_regint(self) -> regint:
        return regint._make(self.data, self.deps)

    def reveal(self) -> cint:
        return self

    def binary_output(self, player: int | None = None) -> None:
        """Write to the binary output of all players, or of one."""
        if player is None:
            machine().outputs.public.append(self.data.copy())
        elif is_constant(player):
            machine().write_private(player, self.data)
        else:
            raise CompilerError("the player has to be known at compile time")

    def less_than(self, other: Any, bit_length: int | None = None) -> regint:
        """1 where self < other, else 0 (regint)."""
        if not is_constant(other) and not (isinstance(other, Register) and other.rank <= self.rank):
            raise CompilerError(f"comparison with {type(other).__name__}")
        difference = self._operate(other, lambda a, b: (a < b).astype(np.int64), "less_than_public")
        return regint._make(difference.data, difference.deps)

    def round(self, k: int, m: int, nearest: Any = None, signed: bool = True) -> cint:
        """(self + 2^(m-1)) >> m for k-bit numbers: public values are always rounded to nearest."""
        if not 1 <= m < k <= RING_BITS:
            raise CompilerError(f"round({k}, {m})")
        machine().count("trunc_public", self.size)
        return self._make(truncate(self.data, k, m, signed, None), self.deps)


def truncate(v: Int64, k: int, m: int, signed: bool, rng: np.random.Generator | None) -> Int64:
    """v / 2^m for v taken as a k-bit number: to nearest (half up), or with `rng` up with the fraction's probability."""
    offset = 2 ** (k - 1) if signed else 0
    u = (v.view(np.uint64) + np.uint64(offset)) & np.uint64(2**k - 1)
    fraction = u & np.uint64(2**m - 1)
    if rng is None:
        up = fraction >= np.uint64(2 ** (m - 1))
    else:
        up = (rng.integers(0, 2**64, size=v.shape, dtype=np.uint64) >> np.uint64(RING_BITS - m)) < fraction
    result = (u >> np.uint64(m)) + up.astype(np.uint64) - np.uint64(offset >> m)
    return result.view(np.int64)
