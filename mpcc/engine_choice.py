"""Which engine `mpcc run` takes: the first secure one that is here; one that protects nothing only when asked for."""

from __future__ import annotations

from mpcc.compiler.errors import MpccError
from mpcc.runtime.engine import Engine, Options
from mpcc.runtime.engines import ENGINES, engine_named, secure_engines


def choose_engine(wanted: str | None, options: Options | None = None) -> tuple[Engine, str]:
    """The engine, and why it was taken ("" where it was asked for).

    Raises:
        MpccError: there is no such engine, an option of it is wrong, or no secure one is here.
        EngineError: the engine that was asked for is not here.
    """
    if wanted is None:
        return _first_that_serves(options)
    engine = engine_named(wanted, options)
    engine.check()
    return engine, ""


def check_provisioning(wanted: str | None) -> Engine:
    """The engine whose parties store shares.

    Raises:
        MpccError: the engine that was asked for stores none, or the first one here.
    """
    chosen, why = choose_engine(wanted)
    if chosen.stores_shares:
        return chosen
    because = f" ({why})" if why else ""
    raise MpccError(
        f"the engine {chosen.name} stores no shares{because}", todo=f"run without provisioning: {chosen.unprovisioned}"
    )


def _first_that_serves(options: Options | None) -> tuple[Engine, str]:
    """The preferred one of those that are here; the reason names those before it that are not."""
    missing: list[str] = []
    todo: list[str] = []
    for engine in secure_engines(options):
        state = engine.availability()
        if state.ready:
            return engine, ", and ".join([*missing, state.found])
        missing.append(state.found)
        todo.append(state.todo)
    clear = " or ".join(engine.name for engine in ENGINES if not engine.secure)
    raise MpccError(
        f"there is no secure engine here: {', and '.join(missing)}",
        todo=f"{', or '.join(reversed(todo))}, or pass --engine {clear}, which computes in clear and protects nothing",
    )
