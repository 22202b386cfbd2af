"""Graph IR -> ring IR, one rule per operation; importing this package registers all of them."""

from mpcc.compiler.lowering import activations, attention, elementwise, layout, linear, normalisation
from mpcc.compiler.lowering.context import RULES, Context, Settings

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
