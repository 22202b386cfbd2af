"""SecretFlow SPU, the secure engine that pip installs: whether it is here, and its protocols."""

from __future__ import annotations

import importlib.metadata

from mpcc.compiler.errors import EngineError
from mpcc.compiler.protocols import SPU_PROTOCOLS, SpuProtocol

NAME, PACKAGE = "spu", "spu"
INSTALL = "pip install mpcc[spu]"
FRACTION_BITS = 18
LARGEST = 2.0**15  # what is larger (the "minus infinity" of a mask) is cut to it: it would not fit the ring


DEFAULT_PROTOCOL = "aby3"
PROTOCOLS = SPU_PROTOCOLS


def installed_version() -> str:
    """The version of the wheel; EngineError if there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError("the spu engine is not installed: the package spu is missing", todo=INSTALL) from None


def protocol_of(name: str) -> SpuProtocol:
    """A protocol by its name; EngineError for others, and for plain semi2k, which would promise too much."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if name == "semi2k":
        raise EngineError(
            "SEMI2K in SPU takes its triples from the first party, which must be trusted",
            todo="use aby3 or cheetah, or accept it by its full name, semi2k-trusted-first-party",
        )
    raise EngineError(f"the spu engine has no protocol {name!r}", todo=f"choose one of: {', '.join(PROTOCOLS)}")
