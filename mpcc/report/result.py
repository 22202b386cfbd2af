"""How one inference is shown: its outputs, and what was measured beside the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mpcc.compiler.types import LABEL, LOGITS
from mpcc.report.tables import add, table_of
from mpcc.runtime.engines import ESTIMATED, engine_named

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from mpcc.compiler.cost import Cost
    from mpcc.result import Result

_SHOWN_LABELS = 24


def show_result(console: Console, result: Result, labels: Mapping[int, str]) -> None:
    """Outputs, then estimate and measurement side by side."""
    show_outputs(console, result, labels)
    console.print()
    console.print(_comparison(result))


def show_outputs(console: Console, result: Result, labels: Mapping[int, str]) -> None:
    """Outputs, as labels where they are known."""
    for name, tensor in result.outputs.items():
        shown = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in tensor.reshape(-1)[:8].tolist()]
        rest = f" ... ({tensor.numel()} values)" if tensor.numel() > 8 else ""
        console.print(f"{name} {list(tensor.shape)}: {' '.join(shown)}{rest}", markup=False)
        if chosen := chosen_labels(name, tensor, labels):
            more = " ..." if len(chosen) > _SHOWN_LABELS else ""
            console.print(f"label: {' '.join(chosen[:_SHOWN_LABELS])}{more}", markup=False, style="bold")


def _comparison(result: Result) -> Table:
    """Estimate and measurement, line by line."""
    table = table_of(f"Engine {result.engine}", "what", "estimated", "measured")
    estimated, measured = result.estimated, result.measured
    sent: tuple[str, ...] = ("none",) * 4
    if measured is not None:
        numbers = (measured.bytes_online, measured.rounds, measured.input_bytes, measured.provisioning_bytes)
        sent = tuple(f"{n:,}" for n in numbers)
    seconds = result.seconds if measured is None else measured.seconds
    add(table, "bytes", f"{estimated.bytes_online:,}", sent[0])
    by_party = measured.bytes_by_party if measured is not None else ()
    for number, (name, own) in enumerate(zip(_players(estimated), estimated.bytes_by_party, strict=False)):
        add(table, f"  sent by the {name}", f"{own:,}", f"{by_party[number]:,}" if number < len(by_party) else "none")
    add(table, "  of these offline", f"{estimated.bytes_offline:,}", "" if estimated.bytes_offline else "0")
    add(table, "rounds", f"{estimated.rounds:,}", sent[1])
    add(table, "seconds", f"{estimated.seconds:.2f} (network, {estimated.network.name})", f"{seconds:.2f}")
    add(table, "bytes of inputs and outputs", f"{estimated.input_bytes:,}", sent[2])
    add(table, "bytes to share the weights", f"{estimated.provisioning_bytes:,}", sent[3])
    return table


def _players(estimated: Cost) -> tuple[str, ...]:
    """The roles by player of the engine that the estimate is about."""
    return engine_named(ESTIMATED).roles(estimated.protocol)


def chosen_labels(name: str, tensor: torch.Tensor, labels: Mapping[int, str]) -> list[str]:
    """The label of every row: the one that was told, or that of the largest logit; empty where the output is neither,
    or the labels have no names.
    """
    if name == LABEL and not tensor.is_floating_point():
        return [labels.get(i, str(i)) for i in tensor.reshape(-1).tolist()] if labels else []
    if name != LOGITS or not tensor.dim() or not labels or tensor.shape[-1] != len(labels) or len(labels) < 2:
        return []
    return [labels.get(i, str(i)) for i in tensor.reshape(-1, tensor.shape[-1]).argmax(-1).tolist()]


def result_json(result: Result, labels: Mapping[int, str]) -> dict[str, object]:
    """What `mpcc run --json` prints for one input."""
    measured: dict[str, object] = {
        "engine": result.engine,
        "seconds": result.seconds,
        "bytes_online": None,
        "rounds": None,
    }
    if result.measured is not None:
        measured = dict(vars(result.measured))
        measured |= {"bytes_online": result.measured.bytes_online, "rounds": result.measured.rounds}
    chosen = {n: found for n, t in result.outputs.items() if (found := chosen_labels(n, t, labels))}
    return {
        "outputs": {n: t.tolist() for n, t in result.outputs.items()},
        "labels": chosen,
        "engine": result.engine,
        "measured": measured,
        "estimated": result.estimated.to_json() | {"engine": ESTIMATED},
        "warnings": list(result.warnings),
    }
