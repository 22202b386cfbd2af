"""The ring IR in clear: exact fixed-point semantics in numpy, for precision, debugging and tests."""

from mpcc.backends.emulator.emulator import profile, run
from mpcc.backends.emulator.report import EmulatorResult, Overflow, RangeUse

__all__ = ["EmulatorResult", "Overflow", "RangeUse", "profile", "run"]
