"""The options that several commands take, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TRACEBACK = "--traceback"

ProgramPath = Annotated[Path, typer.Argument(help="The program, prog.mpc; its bundle prog.mpcc stands beside it.")]
TracebackFlag = Annotated[bool, typer.Option(TRACEBACK, help="Show where an error comes from.")]
NetworkChoice = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="lan, wan, local, or a TOML file.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
StateOption = Annotated[Path | None, typer.Option(help="Folder of stored shares; prog.state unless given.")]
