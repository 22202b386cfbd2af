"""Which engine `mpcc run` takes: mp-spdz if it is usable here, else spu; the emulator only when asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mpcc.compiler.errors import EngineError, MpccError

if TYPE_CHECKING:
    from mpcc.program import Engine

SECURE = ("mp-spdz", "spu")
ENGINES = (*SECURE, "emulator")


def choose_engine(wanted: str | None) -> tuple[Engine, str]:
    """The engine, and why it was taken ("" where it was asked for).

    Raises:
        MpccError: there is no such engine, or no secure one is here.
        EngineError: the engine that was asked for is not here.
    """
    if wanted == "emulator":
        return "emulator", ""
    if wanted == "mp-spdz":
        _check_mp_spdz()
        return "mp-spdz", ""
    if wanted == "spu":
        _spu()
        return "spu", ""
    if wanted is not None:
        raise MpccError(f"there is no engine {wanted!r}", todo=f"engines: {', '.join(ENGINES)}")
    return _first_that_serves()


def check_provisioning(wanted: str | None) -> None:
    """Only MP-SPDZ's parties can store shares.

    Raises:
        MpccError: another engine was asked for, or is the only one here.
    """
    chosen, why = choose_engine(wanted)
    if chosen != "mp-spdz":
        because = f" ({why})" if why else ""
        raise MpccError(
            f"the engine {chosen} stores no shares{because}",
            todo="run without provisioning: spu shares the weights once in every session, however many inputs it has",
        )


def _first_that_serves() -> tuple[Engine, str]:
    from mpcc.runtime.mp_spdz.home import VARIABLE

    try:
        home = _check_mp_spdz()
        return "mp-spdz", f"{VARIABLE} is {home}"
    except EngineError as error:
        if os.environ.get(VARIABLE):
            missing = f"{VARIABLE} cannot be used ({error.what})"
        else:
            missing = f"{VARIABLE} does not say where MP-SPDZ is"
    try:
        return "spu", f"{missing}, and SPU {_spu()} is installed"
    except EngineError as error:
        raise MpccError(
            f"there is no secure engine here: {missing}, and SPU is not installed",
            todo=f"{error.todo}, or set up MP-SPDZ, "
            "or pass --engine emulator, which computes in clear and protects nothing",
        ) from None


def _check_mp_spdz() -> str:
    from mpcc.runtime.mp_spdz.home import VARIABLE, find_home

    find_home()
    return os.environ.get(VARIABLE, "")


def _spu() -> str:
    from mpcc.runtime.spu.protocols import installed_version

    return installed_version()
