"""Loops, break points, timers, printing, and the `program` object."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .errors import CompilerError, StandinError
from .machine import Frame, machine
from .registers import Register, cint, is_constant, regint, truncate
from .secret import public, sint

Body = Callable[[regint], Any]


def for_range(start: Any, stop: Any = None, step: Any = None) -> Callable[[Body], Body]:
    """Decorator: run the body for start <= i < stop (0 <= i < start without `stop`); a loop body is a block of its own.

    The body is run once per iteration here, but compiled once by MP-SPDZ: it must not change Python variables.
    """
    first, last = (0, _public(start)) if stop is None else (_public(start), _public(stop))
    numbers = range(first, last, 1 if step is None else _public(step))

    def decorator(body: Body) -> Body:
        state = machine()
        state.unused_decorators.discard(decorator)
        outer = state.frame
        for number in numbers:
            state.new_block()
            state.frame = Frame()
            body(regint(number))
            state.frame.alive = False
            state.frame = outer
        state.new_block()
        return body

    machine().unused_decorators.add(decorator)
    return decorator


def do_while(body: Callable[[], Any]) -> Callable[[], Any]:
    """Decorator: run the body, each time a block of its own, until it returns zero."""
    state, again = machine(), True
    while again:
        outer = state.frame
        state.new_block()
        state.frame = Frame()
        again = bool(_public(body()))
        state.frame.alive = False
        state.frame = outer
    state.new_block()
    return body


def if_(condition: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Decorator: run the body, a block of its own, if a public condition is not zero."""
    holds = bool(_public(condition))

    def decorator(body: Callable[[], Any]) -> Callable[[], Any]:
        state = machine()
        outer = state.frame
        state.new_block()
        if holds:
            state.frame = Frame()
            body()
            state.frame.alive = False
            state.frame = outer
        state.new_block()
        return body

    return decorator


def _public(value: Any) -> int:
    if is_constant(value):
        return int(value)
    if isinstance(value, (regint, cint)) and value.size == 1:
        return int(value.data[0])
    raise CompilerError("a loop needs public integers")


def break_point(name: str = "") -> None:
    """All that follows is executed after all that precedes."""
    machine().count("break_point", 0)
    machine().new_block()


def start_timer(timer_id: int = 0) -> None:
    if timer_id in machine().timers or not is_constant(timer_id):
        raise CompilerError(f"timer {timer_id} is running already")
    machine().timers.add(timer_id)
    machine().new_block()


def stop_timer(timer_id: int = 0) -> None:
    if timer_id not in machine().timers:
        raise CompilerError(f"timer {timer_id} is not running")
    machine().timers.remove(timer_id)
    machine().new_block()


def print_ln(s: str = "", *args: Any) -> None:
    """Print public values in the places of `%s`."""
    if str(s).replace("%%", "").count("%s") != len(args):
        raise CompilerError("incorrect number of arguments for the format string")
    shown = []
    for arg in args:
        if isinstance(arg, sint):
            raise CompilerError("cannot print a secret value")
        shown.append(_text(arg))
    machine().outputs.printed.append(str(s) % tuple(shown) if args else str(s))


def runtime_error_if(condition: Any, msg: str = "", *args: Any) -> None:
    """End the program if a public condition is not zero."""
    if _public(condition):
        raise StandinError(f"the program ended itself: {msg}")
    machine().new_block()


def _text(arg: Any) -> str:
    if not isinstance(arg, Register):
        return str(arg)
    values = arg.data.tolist()
    return str(values[0]) if len(values) == 1 else "[" + ", ".join(map(str, values)) + "]"


def trunc_pr(result: sint, a: sint, k: int, m: int) -> None:
    """The bare instruction: result = a / 2^m, rounded at random; k only chooses the protocol."""
    if not isinstance(result, sint) or not isinstance(a, sint) or not 1 <= m < k <= 64:
        raise CompilerError(f"trunc_pr with k = {k}, m = {m}")
    machine().count("trunc", a.size)
    rng = None if machine().nearest else machine().rng
    result.write(truncate(a.data, k, m, True, rng), a.deps)


def fixinput(player: int, result: public, f: int, precision: int) -> None:
    """Public integers that every party has in its own binary input (player -1)."""
    if player != -1 or not isinstance(result, cint) or (f, precision) != (0, 0):
        raise CompilerError("fixinput is provided for public integers only: fixinput(-1, cint, 0, 0)")
    machine().count("input_public", result.size)
    result.write(np.array(machine().read_public_input(result.size)), frozenset())


def floatoutput(player: int, significand: cint, exponent: cint, zero: cint, sign: cint) -> None:
    """A binary floating-point number for one player; only zero is provided, whose bytes are those of the integer 0."""
    parts = (significand, exponent, zero, sign)
    if not is_constant(player) or not all(isinstance(p, cint) and p.size == 1 and p.data[0] == 0 for p in parts):
        raise CompilerError("floatoutput is provided for zero only")
    machine().write_private(player, np.zeros(1, dtype=np.int64))


class Options:
    """The command-line options that programs ask for."""

    __slots__ = ("binary", "execute", "garbled", "prime", "ring")

    def __init__(self) -> None:
        self.ring, self.execute, self.prime, self.binary, self.garbled = "64", "ring", None, 0, False


class Program:
    """`program`: its arguments (the first is the program's name) and settings."""

    __slots__ = ("_split", "args", "options", "use_trunc_pr")

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = ["program", *map(str, args)]
        self.options = Options()
        self.use_trunc_pr: bool | int = False
        self._split = 0

    @property
    def curr_block(self) -> SimpleNamespace:
        """Only what tells MP-SPDZ how often its latest loop runs, for planning what to prepare: no effect here."""
        return SimpleNamespace(req_node=SimpleNamespace(children=[SimpleNamespace(aggregator=None)]))

    @property
    def budget(self) -> int:
        """Longest vector that is handled at once, and how many addresses the compiler keeps track of."""
        return machine().budget

    @budget.setter
    def budget(self, value: int) -> None:
        machine().budget = value

    def use_split(self, change: int | None = None) -> int:
        if change is not None:
            self._split = change
        return self._split
