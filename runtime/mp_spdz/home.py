"""Finding MP-SPDZ on this machine, and refusing one that cannot serve.

MP-SPDZ is on no package registry: users install it by its own instructions and say where it is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mpcc.compiler.errors import EngineError
from mpcc.compiler.protocols import PROTOCOLS, MpSpdzProtocol

NAME = "mp-spdz"  # of the engine
VARIABLE = "MP_SPDZ_HOME"
OLDEST = (0, 4, 2)
_HEADING = re.compile(r"^## *v?(\d+(?:\.\d+)+)", re.MULTILINE)


@dataclass(frozen=True)
class Home:
    """A usable MP-SPDZ: an absolute path, and the newest release that its change log names."""

    path: Path
    version: tuple[int, ...]

    @property
    def compiler(self) -> Path:
        return self.path / "compile.py"

    @property
    def release(self) -> str:
        """The version as people write it."""
        return _dotted(self.version)


def setup_of(protocol: str) -> MpSpdzProtocol:
    """A protocol that this engine runs. EngineError for others."""
    if protocol not in PROTOCOLS:
        raise EngineError(
            f"the MP-SPDZ engine does not run the protocol {protocol!r}", todo=f"it runs: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[protocol]


def find_home(home: Path | None = None) -> Home:
    """The MP-SPDZ at `home`, or at MP_SPDZ_HOME. EngineError if there is none, or none that is recent enough."""
    path = _folder(home)
    if not (path / "compile.py").is_file():
        raise EngineError("this is no MP-SPDZ: compile.py is missing", where=str(path), todo=_todo())
    version = _version(path)
    if version < OLDEST:
        raise EngineError(
            f"MP-SPDZ {_dotted(version)} is too old: {_dotted(OLDEST)} or newer is needed",
            where=str(path),
            todo="install a newer release",
        )
    return Home(path, version)


def party_binary(home: Home, protocol: str) -> Path:
    """The program that a party of the protocol runs. EngineError if it was not built."""
    binary = home.path / setup_of(protocol).binary
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise EngineError(
            f"MP-SPDZ's party program for {protocol} is missing",
            where=str(binary),
            todo=f"build it: make -C {home.path} {binary.name}",
        )
    return binary


def _folder(home: Path | None) -> Path:
    given = str(home) if home is not None else os.environ.get(VARIABLE, "")
    if not given:
        raise EngineError(f"MP-SPDZ is not set up: {VARIABLE} is not set", todo=_todo())
    path = Path(given).expanduser().resolve()
    if not path.is_dir():
        raise EngineError("the folder of MP-SPDZ does not exist", where=given, todo=_todo())
    return path


def _version(path: Path) -> tuple[int, ...]:
    """The newest release in the change log, which stands first."""
    log = path / "CHANGELOG.md"
    found = _HEADING.search(log.read_text("utf-8", errors="replace")) if log.is_file() else None
    if found is None:
        raise EngineError(
            "the version of MP-SPDZ is unknown: CHANGELOG.md is missing or names none",
            where=str(path),
            todo="install a complete release",
        )
    return tuple(int(part) for part in found[1].split("."))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _todo() -> str:
    return f"install MP-SPDZ {_dotted(OLDEST)} or newer and point {VARIABLE} at its folder"
