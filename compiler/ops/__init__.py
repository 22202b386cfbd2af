"""The operations of the graph IR: `REGISTRY` by name and `ATEN` by the ATen overload that becomes one."""

from __future__ import annotations

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ops import (
    activations,
    attention,
    clear,
    elementwise,
    embedding,
    layout,
    linear,
    logic,
    masks,
    normalisation,
    outputs,
    reduction,
    soft_cap,
    state,
    substitutes,
)
from mpcc.compiler.ops.base import Converter, Op

_FAMILIES = (
    linear,
    elementwise,
    activations,
    normalisation,
    attention,
    soft_cap,
    substitutes,
    layout,
    reduction,
    embedding,
    logic,
    masks,
    state,
    outputs,
    clear,
)


def _registry() -> dict[str, Op]:
    result: dict[str, Op] = {}
    for family in _FAMILIES:
        for op in family.OPS:
            if op.name in result:
                raise InternalError(f"operation {op.name} is declared twice")
            result[op.name] = op
    return result


def _aten() -> dict[str, Converter]:
    result: dict[str, Converter] = {}
    for op in REGISTRY.values():
        for overload, converter in op.aten.items():
            if overload in result:
                raise InternalError(f"two operations convert {overload}")
            result[overload] = converter
    return result


REGISTRY: dict[str, Op] = _registry()
ATEN: dict[str, Converter] = _aten()
MOVES_DATA = frozenset(op.name for op in REGISTRY.values() if op.moves_data)
KEEPS_NUMBERS = frozenset(op.name for op in REGISTRY.values() if op.keeps_numbers)
WHOLE = frozenset(op.name for op in REGISTRY.values() if op.whole)

__all__ = ["ATEN", "KEEPS_NUMBERS", "MOVES_DATA", "REGISTRY", "WHOLE", "Op"]
