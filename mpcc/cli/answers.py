"""What `mpcc run` and the client's `mpcc party` print of a session: answers, warnings, costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpcc.cli.console import note, terminal
from mpcc.report.result import result_json, show_outputs, show_result
from mpcc.report.session import session_json, show_session
from mpcc.runtime.engines import engine_class

if TYPE_CHECKING:
    from mpcc.program import Program
    from mpcc.result import Result
    from mpcc.runtime.engine import Served


def show_answers(
    program: Program, results: Sequence[Result], served: Served | None, *, as_json: bool, alone: bool
) -> None:
    """The answers of a session of all parties; `alone`: one inference that shared the weights as well.

    An inference alone is shown beside its estimate, where that is about the engine; a session by its own table.
    """
    labels = program.bundle.manifest.labels
    tell_warnings(results)
    if as_json:
        printed = [result_json(r, labels) for r in results]
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=1))
        return
    engine = None if served is None else engine_class(served.engine)
    by_result = engine is None or not engine.exchanges or (alone and engine.estimated)
    for result in results:
        (show_result if by_result else show_outputs)(terminal(), result, labels)
    if served is not None and not by_result:
        terminal().print()
        show_session(terminal(), served, program.cost())


def show_client(program: Program, results: Sequence[Result], served: Served | None, *, as_json: bool) -> None:
    """The client's answers, and what its own party sent."""
    labels = program.bundle.manifest.labels
    tell_warnings(results)
    if as_json:
        session = session_json(served, program.cost(), "client") if served is not None else {}
        print(json.dumps(session | {"answers": [result_json(r, labels) for r in results]}, indent=1))
        return
    for result in results:
        show_outputs(terminal(), result, labels)
    if served is not None:
        terminal().print()
        show_session(terminal(), served, program.cost())


def tell_warnings(results: Sequence[Result]) -> None:
    """Each warning once."""
    for warning in dict.fromkeys(n for r in results for n in r.warnings):
        note(warning)


def speaker(program: Program) -> Callable[[Result], None]:
    """Prints each answer on a line of its own as it comes, for who speaks with the client line by line."""
    labels = program.bundle.manifest.labels

    def told(result: Result) -> None:
        outputs = result_json(result, labels)
        print(json.dumps({name: outputs[name] for name in ("outputs", "labels")}), flush=True)

    return told
