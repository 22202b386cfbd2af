"""The engines, in the order in which they are preferred."""

from __future__ import annotations

from mpcc.compiler.errors import MpccError
from mpcc.runtime.emulator import Emulator
from mpcc.runtime.engine import Engine, Options
from mpcc.runtime.mp_spdz.engine import MpSpdz
from mpcc.runtime.spu.engine import Spu

ENGINES: tuple[type[Engine], ...] = (MpSpdz, Spu, Emulator)
DEFAULT = MpSpdz.name
ESTIMATED = next(engine.name for engine in ENGINES if engine.estimated)  # what estimates of costs are about
NAMES = tuple(engine.name for engine in ENGINES)


def engine_class(name: str) -> type[Engine]:
    """An engine by its name. MpccError if there is none."""
    for engine in ENGINES:
        if engine.name == name:
            return engine
    raise MpccError(f"there is no engine {name!r}", todo=f"engines: {', '.join(NAMES)}")


def engine_named(name: str, options: Options | None = None) -> Engine:
    """An engine by its name, with its options. MpccError if there is none, or if an option is wrong."""
    return engine_class(name).configured(options or Options())


def secure_engines(options: Options | None = None) -> tuple[Engine, ...]:
    """Those that protect the parties from each other, the preferred one first."""
    return tuple(engine.configured(options or Options()) for engine in ENGINES if engine.secure)
