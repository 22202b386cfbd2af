"""What an operation is: one declaration holds its shape rule, float meaning and the ATen calls that become it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Union

import torch

from mpcc.compiler.errors import InternalError, MpccError
from mpcc.compiler.types import Attr, TensorType

Attrs = Mapping[str, Attr]
Types = Sequence[TensorType]
Tensors = Sequence[torch.Tensor]
Sources = tuple[Union[int, None], ...]
Statistics = Mapping[str, float]
Args = Mapping[str, Any]  # the arguments of one ATen call by schema name; tensors are `Value`s

FLOATS = ("f32", "f64")
RING, SPU = "ring", "spu"  # back ends: the lowering to ring IR (of MP-SPDZ and the emulator), and StableHLO for SPU
_RANK = ("bool", "i32", "i64", "f32", "f64")
_FROM_TORCH: Mapping[torch.dtype, str] = {
    torch.bool: "bool",
    torch.uint8: "i32",
    torch.int8: "i32",
    torch.int16: "i32",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "f32",
    torch.bfloat16: "f32",
    torch.float32: "f32",
    torch.float64: "f64",
}
TO_TORCH: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "i32": torch.int32,
    "i64": torch.int64,
    "f32": torch.float32,
    "f64": torch.float64,
}


class NotConvertible(MpccError):
    """This call of a known ATen operation has no counterpart; `what` is the reason."""


@dataclass(frozen=True)
class Value:
    """A value in the graph being built."""

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype


class Builder(Protocol):
    """What a converter may do: append nodes and literal constants."""

    def emit(self, op: str, inputs: Sequence[Value], /, **attrs: Attr) -> Value: ...

    def literal(self, tensor: torch.Tensor) -> Value: ...


Converted = Union[Value, Sequence[Union[Value, None]], None]
Converter = Callable[[Builder, Args], Converted]


class Op:
    """An operation of the graph IR.

    Subclasses set `name`, `arity` (fewest and most inputs), `attrs` (the names of all attributes), `optional` (of those
    that may be left out) and `aten` (overload name -> converter), implement `infer` and `reference`, and declare what
    passes and back ends go by:

        secure         it can run inside MPC: each of `back_ends` has a form of it
        elementwise    an element of the result depends on the elements of its place alone, the inputs being broadcast
        moves_data     the result holds elements of the inputs in other places, and nothing else
        keeps_numbers  the same, but the element type may be another
        whole          the result holds whole numbers, whatever its element type
        statistics     what its forms may know of the inputs; `measure` finds them on calibration inputs. Over several,
                       the lowest counts of a name that ends in "_min", of others the highest
        replaces       the operation in whose place a user may choose this one, another function; `chosen_by` is what
                       the user says, such as ("gelu", "quad")
    """

    name: ClassVar[str]
    arity: ClassVar[tuple[int, int]]
    attrs: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    secure: ClassVar[bool] = False
    back_ends: ClassVar[tuple[str, ...]] = (RING, SPU)
    elementwise: ClassVar[bool] = False
    moves_data: ClassVar[bool] = False
    keeps_numbers: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    statistics: ClassVar[tuple[str, ...]] = ()
    replaces: ClassVar[str] = ""
    chosen_by: ClassVar[tuple[str, str]] = ("", "")
    aten: ClassVar[Mapping[str, Converter]] = {}

    def type(self, inputs: Types, attrs: Attrs) -> TensorType:
        """The type of the result.

        Raises:
            InternalError: number of inputs, attributes or shapes do not fit the operation.
        """
        self.check(inputs, attrs)
        return self.infer(inputs, attrs)

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        """The shape rule, given inputs and attributes of the right number and names."""
        raise NotImplementedError

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        """The float meaning of the operation."""
        raise NotImplementedError

    def measure(self, inputs: Tensors, attrs: Attrs) -> Statistics:
        """The declared `statistics` of one use of the operation."""
        raise NotImplementedError

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """Where the places along dimension `dim` of the result come from.

        For every input the dimension whose place i is all of it that place i of the result depends on, or None for an
        input that all places read whole; None alone where places of the result do not depend on single places.
        """
        if not self.elementwise:
            return None
        rank = max((len(t.shape) for t in inputs), default=0)
        return tuple(aligned(t, rank, dim) for t in inputs)

    def check(self, inputs: Sequence[object], attrs: Attrs) -> None:
        fewest, most = self.arity
        if not fewest <= len(inputs) <= most:
            raise InternalError(f"{self.name} takes {fewest} to {most} inputs, not {len(inputs)}")
        if set(attrs) - set(self.optional) != set(self.attrs):
            raise InternalError(f"{self.name} has the attributes {sorted(self.attrs)}, not {sorted(attrs)}")

    def refusal(self, inputs: Types, result: TensorType) -> str:
        """Why this use cannot run inside MPC, or the empty string."""
        if not self.secure:
            return "it has no secure form in mpcc and works on public or one party's values only"
        if result.dtype not in FLOATS:
            return f"its result is {result.dtype}; integer and boolean values are never computed inside MPC"
        return ""


def extremes(name: str, value: torch.Tensor) -> Statistics:
    """The statistics `name`_min and `name`_max."""
    low, high = torch.aminmax(value)
    return {f"{name}_min": float(low), f"{name}_max": float(high)}


def fail(op: str, why: str) -> InternalError:
    return InternalError(f"{op}: {why}")


def from_torch(dtype: torch.dtype) -> str:
    """The element type that stands for `dtype`; 16-bit floats are widened to f32."""
    try:
        return _FROM_TORCH[dtype]
    except KeyError:
        raise NotConvertible(f"element type {dtype} is not supported") from None


def is_float(value: TensorType | Value) -> bool:
    return value.dtype in FLOATS


def promote(*dtypes: str) -> str:
    """The element type that arithmetic between these yields."""
    return max(dtypes, key=_RANK.index)


def broadcast(op: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of `shapes` under NumPy's rules."""
    rank = max(len(s) for s in shapes)
    result = []
    for sizes in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True):
        wide = {n for n in sizes if n != 1}
        if len(wide) > 1:
            raise fail(op, f"shapes {', '.join(map(str, shapes))} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def aligned(value: TensorType, rank: int, dim: int) -> int | None:
    """The dimension of `value` that dimension `dim` of a result of `rank` dimensions reads; None if it is repeated."""
    own = dim - (rank - len(value.shape))
    return None if own < 0 or value.shape[own] == 1 else own


def axis(dim: int, rank: int) -> int:
    """`dim` counted from the front."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise InternalError(f"dimension {dim} of a tensor with {rank} dimensions")
    return dim % max(rank, 1)


def ints(attrs: Attrs, key: str) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    value = attrs[key]
    if not isinstance(value, tuple) or not all(isinstance(v, int) for v in value):
        raise InternalError(f"attribute {key} must be a tuple of integers")
    return tuple(v for v in value if isinstance(v, int))


def integer(attrs: Attrs, key: str) -> int:
    value = attrs[key]
    if not isinstance(value, int):
        raise InternalError(f"attribute {key} must be an integer")
    return value


def number(attrs: Attrs, key: str) -> float:
    value = attrs[key]
    if not isinstance(value, (int, float)):
        raise InternalError(f"attribute {key} must be a number")
    return value


def choice(attrs: Attrs, key: str, allowed: Sequence[str]) -> str:
    value = attrs[key]
    if not isinstance(value, str) or value not in allowed:
        raise InternalError(f"attribute {key} must be one of {', '.join(allowed)}")
    return value


def value_of(b: Builder, value: Any, like: Value | None = None) -> Value:
    """`value` itself, or a Python number as a 0-dimensional literal of a type that fits `like`."""
    if isinstance(value, Value):
        return value
    if isinstance(value, bool):
        dtype = torch.bool
    elif isinstance(value, int):
        dtype = TO_TORCH[like.dtype] if like is not None and like.dtype != "bool" else torch.int64
    else:
        dtype = TO_TORCH[like.dtype] if like is not None and is_float(like) else torch.float32
    return b.literal(torch.tensor(value, dtype=dtype))


def reject(reason: str) -> NotConvertible:
    return NotConvertible(reason)


def only(condition: bool, reason: str) -> None:
    """Refuse the call unless `condition` holds."""
    if not condition:
        raise reject(reason)
