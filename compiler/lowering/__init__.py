"""Graph IR -> ring IR, one rule per operation; importing this package registers all of them."""

from mpcc.compiler.lowering.context import RULES, Context, Settings
from mpcc.compiler.lowering.families import activations, attention, elementwise, layout, linear, normalisation

__all__ = [
    "RULES",
    "Context",
    "Settings",
    "activations",
    "attention",
    "elementwise",
    "layout",
    "linear",
    "normalisation",
]
