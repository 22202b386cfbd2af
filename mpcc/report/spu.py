"""How a session on SPU is shown. Imports no torch: every role prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from mpcc.report.session import Row, _mean, _numbers, measured_json
from mpcc.runtime.spu.protocols import NAME, protocol_of

if TYPE_CHECKING:
    from rich.console import Console

    from mpcc.compiler.cost import Cost
    from mpcc.runtime.spu.session import SpuServed


def show_spu_session(console: Console, served: SpuServed, protocol: str, estimated: Cost | None = None) -> None:
    """What an inference (mean) and the session cost, and what mpcc's estimate is about instead."""
    count = len(served.measured)
    title = f"{count} inference{'s' if count > 1 else ''} in one session, engine {NAME}, protocol {protocol}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what")
    for column in ("per inference", "in all"):
        table.add_column(column, justify="right")
    for what, _, each, total in spu_rows(served, protocol):
        table.add_row(what, each, total)
    console.print(table)
    if estimated is not None:
        other = f"{estimated.bytes_online:,} bytes and {estimated.rounds:,} rounds"
        console.print(f"no estimate for {NAME}; on MP-SPDZ ({estimated.protocol}): {other}", markup=False)


def spu_rows(served: SpuServed, protocol: str) -> list[Row]:
    """The lines of the table, in the form of `session_report` with no estimate."""
    measured, roles = served.measured, protocol_of(protocol).roles
    rows = [
        _numbers(f"bytes sent by the {roles[player]}", None, [m.bytes_by_party[i] for m in measured])
        for i, player in enumerate(served.players)
    ]
    if len(served.players) == len(roles):
        rows.append(_numbers("bytes sent by all", None, [m.bytes_online for m in measured]))
    rows.append(_numbers("messages of the busiest party", None, [m.rounds for m in measured]))
    seconds = [m.seconds for m in measured]
    rows.append(("seconds", "", f"{_mean(seconds):.2f}", f"{sum(seconds):.2f}"))
    rows.append(_numbers("bytes of inputs and outputs", None, [m.input_bytes for m in measured]))
    rows.append(_numbers("bytes to ask for requests", None, [m.control_bytes for m in measured]))
    rows.append(("bytes to share the weights, once", "", "", f"{served.weights_bytes:,}"))
    rows.append(("seconds to share the weights, once", "", "", f"{served.weights_seconds:.2f}"))
    rows.append(("seconds to compile, once", "", "", f"{served.compile_seconds:.2f}"))
    return rows


def spu_json(served: SpuServed, protocol: str, role: str) -> dict[str, object]:
    """The session for programs: one entry of `inferences` for each answer, in order."""
    return {
        "role": role,
        "engine": NAME,
        "protocol": protocol,
        "players": list(served.players),
        "inferences": [measured_json(m) for m in served.measured],
        "weights_bytes": served.weights_bytes,
        "weights_seconds": served.weights_seconds,
        "compile_seconds": served.compile_seconds,
    }
