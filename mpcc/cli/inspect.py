"""`mpcc inspect`: weights and evidence, who computes and learns what, costs and approximations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import terminal
from mpcc.cli.options import JsonFlag, NetworkChoice, ProgramPath, TracebackFlag
from mpcc.compiler.errors import MpccError

if TYPE_CHECKING:
    from mpcc.program import Program


def inspect(
    program: ProgramPath,
    as_json: JsonFlag = False,
    ir: Annotated[str | None, typer.Option(help="Print an IR instead: graph or ring.")] = None,
    network: NetworkChoice = None,
    by: Annotated[str | None, typer.Option(help="Costs by layer, operation or primitive only.")] = None,
    traceback: TracebackFlag = False,
) -> None:
    """Show the weights and the evidence, who computes and learns what, costs and approximations."""
    if ir not in (None, "graph", "ring"):
        raise MpccError(f"there is no IR {ir!r}", todo="choose one of: graph, ring")
    loaded = files.load(program)
    if ir is not None:
        print(_ir_text(loaded, ir), end="")
        return
    if by is not None:
        loaded.cost(network, by)  # refuses an unknown key
    if as_json:
        print(json.dumps(loaded.to_json(network), indent=1))
        return
    from mpcc.report.program import show_program

    loaded.cost(network)
    show_program(terminal(), loaded, network, [by] if by else ["layer", "operation", "primitive"])


def _ir_text(program: Program, ir: str) -> str:
    from mpcc.compiler.graph.text import print_graph
    from mpcc.compiler.ring.text import print_ring

    return print_graph(program.bundle.graph) if ir == "graph" else print_ring(program.bundle.ring)
