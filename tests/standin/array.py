"""Arrays in memory."""

from __future__ import annotations

from typing import Any

from .errors import CompilerError
from .machine import machine
from .registers import is_constant, regint
from .secret import InMemory, sint, space_of


class Array:
    """`length` elements of one type at a fixed address."""

    def __init__(self, length: int, value_type: type[InMemory]) -> None:
        if not is_constant(length) or length < 1:
            raise CompilerError(f"array of length {length!r}")
        self.length, self.value_type = length, value_type
        self.address = space_of(value_type).malloc(length)

    def __len__(self) -> int:
        return self.length

    def _at(self, index: Any) -> Any:
        """The address of element `index` (int or regint)."""
        if isinstance(index, regint):
            if (index.data >= self.length).any() or (index.data < 0).any():
                raise IndexError(f"index beyond an array of length {self.length}")
            return self.address + index
        if not is_constant(index):
            raise CompilerError(f"{type(index).__name__} is no index")
        index += self.length * (index < 0)
        if not 0 <= index < self.length:
            raise IndexError(f"index {index}, length {self.length}")
        return self.address + index

    def get_vector(self, base: Any = 0, size: int | None = None) -> Any:
        """`size` elements from `base` on."""
        if size is None:
            if not is_constant(base):
                raise CompilerError("get_vector from a run-time base needs a size")
            size = self.length - base
        return self.value_type.load_mem(self._at(base), size=size)

    def assign(self, other: Any, base: Any = 0) -> Array:
        """Store a vector from `base` on."""
        if isinstance(other, Array):
            other = other.get_vector()
        value = other if isinstance(other, self.value_type) else self.value_type(other)
        if is_constant(base) and base + value.size > self.length:
            raise CompilerError(f"{value.size} elements from {base} on do not fit an array of length {self.length}")
        value.store_in_mem(self._at(base))
        return self

    assign_vector = assign

    def assign_all(self, value: int) -> Array:
        """Store one compile-time integer everywhere."""
        return self.assign(self.value_type(value, size=self.length))

    def _slice(self, index: slice) -> tuple[int, int]:
        if index.step not in (None, 1):
            raise CompilerError("slices with a step are not provided")
        start, stop = index.start or 0, min(index.stop or self.length, self.length)
        return start, stop - start

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.get_vector(*self._slice(index))
        return self.value_type.load_mem(self._at(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            self.assign(value, self._slice(index)[0])
            return
        register = value if isinstance(value, self.value_type) else self.value_type(value)
        if register.size != 1:
            raise CompilerError("size mismatch in array assignment")
        register.store_in_mem(self._at(index))

    def input_from(self, player: int, budget: int | None = None, binary: bool = False) -> None:
        """Fill with the next integers of a player's binary input; more than `budget` elements make a loop."""
        self._secret("input_from")
        loop = self.length > (budget or machine().budget)
        if loop:
            machine().new_block()
        self.assign(sint.get_input_from(player, binary=binary, size=self.length))
        if loop:
            machine().new_block()

    def write_to_file(self, position: int | None = None) -> None:
        """Store the shares at `position` (in elements; at the end without one)."""
        self._secret("write_to_file")
        sint.write_to_file(self.get_vector(), position)

    def read_from_file(self, start: int) -> None:
        """Load shares from `start` (in elements) on."""
        self._secret("read_from_file")
        _, (values,) = sint.read_from_file(start, size=self.length)
        machine().new_block()
        self.assign(values)

    def _secret(self, what: str) -> None:
        if self.value_type is not sint:
            raise CompilerError(f"{what} is for arrays of sint")
