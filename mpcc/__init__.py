"""mpcc: a fine-tuned transformer becomes a program for secure multi-party inference.

    program = mpcc.compile(model, sequence_length=64, partition=mpcc.Partition.from_base(base), calibration=samples)
    program.cost(network="wan")
    program.save("prog.mpc")
    result = mpcc.load("prog.mpc").run({"text": "a fine film"})

Everything is loaded when first used: `import mpcc` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpcc.api import compile, save
    from mpcc.compiler.cost import Cost
    from mpcc.compiler.driver.options import Options
    from mpcc.compiler.errors import MpccError
    from mpcc.compiler.frontend.partition import Partition
    from mpcc.loading import load
    from mpcc.program import Program
    from mpcc.result import Result

__all__ = ["Cost", "MpccError", "Options", "Partition", "Program", "Result", "compile", "load", "save"]

_HOME = {
    "Cost": "mpcc.compiler.cost",
    "MpccError": "mpcc.compiler.errors",
    "Options": "mpcc.compiler.driver.options",
    "Partition": "mpcc.compiler.frontend.partition",
    "Program": "mpcc.program",
    "Result": "mpcc.result",
    "compile": "mpcc.api",
    "load": "mpcc.loading",
    "save": "mpcc.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mpcc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
