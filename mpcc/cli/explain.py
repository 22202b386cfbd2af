"""`mpcc explain`: why a node is where it is, and why the program has the form it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import terminal
from mpcc.cli.options import JsonFlag, ProgramPath, TracebackFlag

if TYPE_CHECKING:
    from mpcc.program import Program


def explain(
    program: ProgramPath,
    node: Annotated[
        str | None, typer.Argument(help="A node, weight or layer; without it, all nodes are listed.")
    ] = None,
    alternatives: Annotated[
        bool, typer.Option("--alternatives", help="The forms of the program that were considered, and why one won.")
    ] = False,
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Say why a node is computed where it is, or why the program has the form it has."""
    loaded = files.load(program)
    if alternatives:
        _explain_alternatives(loaded, as_json)
        return
    lines = loaded.explain(node) if node is not None else _sites(loaded)
    print(json.dumps(lines, indent=1) if as_json else "\n".join(lines))


def _explain_alternatives(program: Program, as_json: bool) -> None:
    from dataclasses import asdict

    from mpcc.inspection import sentence
    from mpcc.report.program import show_alternatives

    manifest = program.bundle.manifest
    if as_json:
        why = sentence(manifest.alternatives, manifest.network.name)
        print(
            json.dumps(
                {
                    "network": asdict(manifest.network),
                    "why": why,
                    "alternatives": [asdict(a) for a in manifest.alternatives],
                },
                indent=1,
            )
        )
        return
    show_alternatives(terminal(), manifest)


def _sites(program: Program) -> list[str]:
    """All operations by where they are computed."""
    lines = []
    for site in ("compile", "client", "provider", "mpc"):
        nodes = [n for n in program.bundle.graph.operations() if n.site == site]
        if nodes:
            lines.append(f"{'public, when compiled' if site == 'compile' else site}: {len(nodes)} operations")
            lines += [f"  {n.name} = {n.op}  {n.origin.layer}" for n in nodes]
    return lines
