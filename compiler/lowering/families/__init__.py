"""One rule per operation, in the families of compiler/ops; importing this package registers all of them."""

from mpcc.compiler.lowering.context import RULES
from mpcc.compiler.lowering.families import (
    activations,
    attention,
    attention_seen,
    elementwise,
    layout,
    linear,
    normalisation,
    outputs,
    reduction,
    soft_cap,
    state,
    substitutes,
)

__all__ = [
    "RULES",
    "activations",
    "attention",
    "attention_seen",
    "elementwise",
    "layout",
    "linear",
    "normalisation",
    "outputs",
    "reduction",
    "soft_cap",
    "state",
    "substitutes",
]
