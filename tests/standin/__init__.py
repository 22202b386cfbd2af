"""A stand-in for the part of MP-SPDZ's language that mpcc emits: it runs the emitted text in clear, with numpy.

It is strict: what MP-SPDZ's compiler would reject is refused, and so is a program whose meaning would depend on the
order in which MP-SPDZ schedules memory accesses. It protects nothing and measures no cost.
"""

from .errors import CompilerError, HazardError, MemoryAccessError, StandinError
from .execution import execute
from .machine import Counter, Outputs

__all__ = [
    "CompilerError",
    "Counter",
    "HazardError",
    "MemoryAccessError",
    "Outputs",
    "StandinError",
    "execute",
]
