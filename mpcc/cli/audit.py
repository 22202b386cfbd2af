"""`mpcc audit`: what a role is about to take part in, and the digest that all parties compare."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mpcc.cli import files
from mpcc.cli.console import terminal
from mpcc.cli.options import JsonFlag, ProgramPath, TracebackFlag


def audit_command(
    program: ProgramPath,
    role: Annotated[
        str | None, typer.Option(help="Only what concerns this role: client, provider, helper, ...")
    ] = None,
    as_json: JsonFlag = False,
    traceback: TracebackFlag = False,
) -> None:
    """Say who gives, learns and opens what, what the program tells about the private weights, and its digest.

    Reads a whole program or one role's part, checks it as a role does before a run, and runs nothing of it.
    """
    from mpcc.audit import audit, audit_json, check_role

    audited = audit(files.load(program))
    if role is not None:
        check_role(audited, role)
    if as_json:
        print(json.dumps(audit_json(audited, role), indent=1))
        return
    from mpcc.report.audit import show_audit

    show_audit(terminal(), audited, role)
