"""One rule per operation, in the families of compiler/ops; importing this package registers all of them."""

from mpcc.backends.spu.families import (
    activations,
    attention,
    elementwise,
    layout,
    linear,
    normalisation,
    outputs,
    reduction,
    substitutes,
)
from mpcc.backends.spu.writer import RULES

__all__ = [
    "RULES",
    "activations",
    "attention",
    "elementwise",
    "layout",
    "linear",
    "normalisation",
    "outputs",
    "reduction",
    "substitutes",
]
