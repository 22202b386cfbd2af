"""Running a program's text with the stand-in's names as its globals."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import library
from .errors import CompilerError, StandinError
from .machine import Machine, Outputs, enter, leave
from .registers import regint
from .secret import ltz, personal, public, sint, sintbit

Int64 = NDArray[np.int64]


def execute(
    source: str,
    *,
    args: tuple[Any, ...] = (),
    inputs: Mapping[int, Int64] | None = None,
    truncation: str = "nearest",
    seed: int = 0,
    persistence: dict[str, Int64] | None = None,
    seen_by: int | None = None,
) -> Outputs:
    """Run the text of a program and return what it wrote.

    `args` become program.args[1:]; `inputs` are the players' binary inputs (flat int64); `truncation` is how a
    truncation that is not asked to be nearest rounds: "nearest" (for comparing exactly) or "probabilistic"
    (seeded). `persistence` keeps the stored shares from one call to the next. With `seen_by` the players' own public
    integers may differ, and those of this player count: the program as it runs there. Errors are StandinErrors, or
    whatever the text raises by itself (a name that is not provided is a NameError).
    """
    if truncation not in ("nearest", "probabilistic"):
        raise ValueError(f"unknown truncation {truncation!r}")
    machine = Machine(inputs or {}, truncation == "nearest", seed, {} if persistence is None else persistence)
    machine.seen_by = seen_by
    enter(machine)
    try:
        with np.errstate(over="ignore"):
            exec(compile(source, "<program>", "exec"), _names(args))
        if machine.unused_decorators:
            raise CompilerError("a for_range or an if_ decorates no function")
        if machine.timers:
            raise StandinError(f"timers {sorted(machine.timers)} are never stopped")
    finally:
        leave()
    return machine.outputs


def _names(args: tuple[Any, ...]) -> dict[str, Any]:
    comparison = SimpleNamespace(LTZ=ltz)
    names = ("trunc_pr", "fixinput", "floatoutput")
    instructions = SimpleNamespace(**{name: getattr(library, name) for name in names})
    types = SimpleNamespace(sint=sint, cint=public, regint=regint, sintbit=sintbit, personal=personal)
    modules = {
        "Compiler": SimpleNamespace(comparison=comparison, instructions=instructions, types=types, library=library),
        "Compiler.comparison": comparison,
        "Compiler.instructions": instructions,
        "Compiler.types": types,
        "Compiler.library": library,
    }

    def load(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name in modules and fromlist:
            return modules[name]
        if name.split(".")[0] == "Compiler":
            raise ImportError(f"the stand-in does not provide {name}")
        return builtins.__import__(name, globals, locals, fromlist, level)

    return {
        "__builtins__": {**vars(builtins), "__import__": load},
        "__name__": "program",
        "program": library.Program(args),
        "comparison": comparison,
        **vars(instructions),
        **vars(types),
        **{name: getattr(library, name) for name in PROVIDED},
    }


PROVIDED = (
    "for_range",
    "do_while",
    "if_",
    "break_point",
    "start_timer",
    "stop_timer",
    "print_ln",
    "runtime_error_if",
)
