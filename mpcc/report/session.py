"""The table at the end of a session: what it cost, beside the estimate where that is about the engine.

Imports no torch: every role prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mpcc.runtime.engines import ESTIMATED, engine_class

if TYPE_CHECKING:
    from mpcc.compiler.cost import Cost
    from mpcc.runtime.engine import Measured, Provisioned, Served

Row = tuple[str, str, str, str]  # what, estimated, per inference, in all


def show_session(console: Console, served: Served, estimated: Cost) -> None:
    """Bytes by party and in all, rounds and seconds of an inference (mean) and of the session, and the estimate."""
    count, engine = len(served.measured), engine_class(served.engine)
    title = (
        f"{count} inference{'s' if count > 1 else ''} in one session, engine {served.engine}, "
        f"protocol {served.protocol}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what")
    for column in ("estimated", "per inference", "in all") if engine.estimated else ("per inference", "in all"):
        table.add_column(column, justify="right")
    for what, estimate, each, total in session_rows(served, estimated):
        table.add_row(*((what, estimate, each, total) if engine.estimated else (what, each, total)))
    console.print(table)
    if not engine.estimated:
        other = f"{estimated.bytes_online:,} bytes and {estimated.rounds:,} rounds"
        console.print(f"no estimate for {served.engine}; on {ESTIMATED} ({estimated.protocol}): {other}", markup=False)


def session_rows(served: Served, estimated: Cost) -> list[Row]:
    """The lines of the table. What a protocol sends offline is sent within the inference and counted there."""
    engine, measured, everybody = engine_class(served.engine), served.measured, len(served.players) == len(served.roles)
    by_party = estimated.bytes_by_party if engine.estimated else ()
    rows = [
        _numbers(
            f"bytes sent by the {served.roles[player]}",
            by_party[player] if player < len(by_party) else None,
            [m.bytes_by_party[i] for m in measured],
        )
        for i, player in enumerate(served.players)
    ]
    if everybody:
        rows.append(_numbers("bytes sent by all", estimated.bytes_online, [m.bytes_online for m in measured]))
    if everybody and engine.estimated:
        rows.append(("of these offline", f"{estimated.bytes_offline:,}", "" if estimated.bytes_offline else "0", ""))
    rounds = estimated.rounds if everybody else _rounds_of(estimated, served.players)
    word = engine.exchanges if engine.estimated else f"{engine.exchanges} of the busiest party"
    rows.append(_numbers(word, rounds, [m.rounds for m in measured]))
    seconds = [m.seconds for m in measured]
    expected = f"{estimated.seconds:.2f} (network, {estimated.network.name})"
    rows.append(("seconds", expected, f"{_mean(seconds):.2f}", f"{sum(seconds):.2f}"))
    around = estimated.input_bytes if everybody else None
    rows.append(_numbers("bytes of inputs and outputs", around, [m.input_bytes for m in measured]))
    rows.append(_numbers("bytes to ask for requests", None, [m.control_bytes for m in measured]))
    return rows + _once(served, estimated.provisioning_bytes if everybody else None)


def _once(served: Served, expected: int | None) -> list[Row]:
    """What is done once in a session; `expected` are the bytes of sharing the weights."""
    word = "bytes of weights (stored shares)" if served.stored else "bytes to share the weights"
    expected = 0 if served.stored else expected
    return [
        (word, "" if expected is None else f"{expected:,}", "0", f"{served.weights_bytes:,}"),
        ("seconds to read or share the weights", "", "", f"{served.weights_seconds:.2f}"),
        ("seconds to compile", "", "", f"{served.compile_seconds:.2f}"),
    ]


def _rounds_of(estimated: Cost, players: Sequence[int]) -> int:
    """Estimated rounds of the busiest of these players."""
    return max((estimated.rounds_by_party[p] for p in players if p < len(estimated.rounds_by_party)), default=0)


def _numbers(what: str, estimated: int | None, counted: Sequence[int]) -> Row:
    mean = _mean(counted)
    shown = f"{mean:,.0f}" if mean == round(mean) else f"{mean:,.1f}"
    return what, "" if estimated is None else f"{estimated:,}", shown, f"{sum(counted):,}"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def session_json(served: Served, estimated: Cost, role: str | None = None) -> dict[str, object]:
    """The session for programs: one entry of `inferences` for each answer, in order.

    The estimate is in it where it is about the engine.
    """
    table: dict[str, object] = {
        "role": role,
        "engine": served.engine,
        "protocol": served.protocol,
        "players": list(served.players),
        "inferences": [measured_json(m) for m in served.measured],
        "weights_bytes": served.weights_bytes,
        "weights_seconds": served.weights_seconds,
        "compile_seconds": served.compile_seconds,
        "control_bytes": served.control_bytes,
        "most_requests": served.most_requests,
    }
    return table | ({"estimated": estimated.to_json()} if engine_class(served.engine).estimated else {})


def measured_json(measured: Measured) -> dict[str, object]:
    """One inference's numbers."""
    return asdict(measured) | {"bytes_online": measured.bytes_online, "rounds": measured.rounds}


def show_provisioned(console: Console, done: Provisioned, state: str) -> None:
    """One paragraph on a provisioning."""
    how = f"compiled in {done.compile_seconds:.1f} s" if done.compiled else "byte code of before (same program)"
    console.print(
        f"shared {done.values:,} private weights: {done.bytes:,} bytes sent, {done.seconds:.2f} s; {how}", markup=False
    )
    console.print(f"the parties' shares are in {state}", markup=False)
