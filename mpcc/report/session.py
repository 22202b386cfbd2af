"""The table at the end of a session: what it cost beside the estimate. Imports no torch: every role prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mpcc.runtime.mp_spdz.home import setup_of

if TYPE_CHECKING:
    from mpcc.compiler.cost import Cost
    from mpcc.runtime.engine import Measured, Provisioned, Served

Row = tuple[str, str, str, str]


def show_session(console: Console, served: Served, estimated: Cost, stored: bool) -> None:
    """Bytes by party and in all, rounds and seconds of an inference (mean) and of the session, and the estimate."""
    count = len(served.measured)
    title = f"{count} inference{'s' if count > 1 else ''} in one session, engine mp-spdz, protocol {estimated.protocol}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what")
    for column in ("estimated", "per inference", "in all"):
        table.add_column(column, justify="right")
    for row in session_rows(served, estimated, stored):
        table.add_row(*row)
    console.print(table)


def session_rows(served: Served, estimated: Cost, stored: bool) -> list[Row]:
    """The lines of the table. What a protocol sends offline is sent within the inference and counted there."""
    measured, roles = served.measured, setup_of(estimated.protocol).roles
    rows = [
        _numbers(
            f"bytes sent by the {roles[player]}",
            estimated.bytes_by_party[player],
            [m.bytes_by_party[i] for m in measured],
        )
        for i, player in enumerate(served.players)
        if player < len(estimated.bytes_by_party)
    ]
    everybody = len(served.players) == len(roles)
    if everybody:
        rows.append(_numbers("bytes sent by all", estimated.bytes_online, [m.bytes_online for m in measured]))
        offline = "" if estimated.bytes_offline else "0"
        rows.append(("of these offline", f"{estimated.bytes_offline:,}", offline, ""))
    rounds = estimated.rounds if everybody else max(estimated.rounds_by_party[p] for p in served.players)
    rows.append(_numbers("rounds", rounds, [m.rounds for m in measured]))
    seconds = [m.seconds for m in measured]
    rows.append(
        (
            "seconds",
            f"{estimated.seconds:.2f} (network, {estimated.network.name})",
            f"{_mean(seconds):.2f}",
            f"{sum(seconds):.2f}",
        )
    )
    around = estimated.input_bytes if everybody else None
    rows.append(_numbers("bytes of inputs and outputs", around, [m.input_bytes for m in measured]))
    rows.append(_numbers("bytes to ask for requests", None, [m.control_bytes for m in measured]))
    word = "bytes of weights (stored shares)" if stored else "bytes to share the weights"
    expected = 0 if stored else estimated.provisioning_bytes if everybody else None
    rows.append((word, "" if expected is None else f"{expected:,}", "0", f"{served.weights_bytes:,}"))
    rows.append(("seconds to read or share the weights", "", "", f"{served.weights_seconds:.2f}"))
    rows.append(("seconds to compile", "", "", f"{served.compile_seconds:.2f}"))
    return rows


def _numbers(what: str, estimated: int | None, counted: Sequence[int]) -> Row:
    mean = _mean(counted)
    shown = f"{mean:,.0f}" if mean == round(mean) else f"{mean:,.1f}"
    return what, "" if estimated is None else f"{estimated:,}", shown, f"{sum(counted):,}"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def session_json(served: Served, estimated: Cost, role: str | None = None) -> dict[str, object]:
    """The session for programs: one entry of `inferences` for each answer, in order."""
    return {
        "role": role,
        "players": list(served.players),
        "inferences": [measured_json(m) for m in served.measured],
        "weights_bytes": served.weights_bytes,
        "weights_seconds": served.weights_seconds,
        "compile_seconds": served.compile_seconds,
        "control_bytes": served.control_bytes,
        "estimated": estimated.to_json(),
    }


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
