"""How the command line shows a program and its results: rich tables, and nothing but what inspection.py gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpcc.backends.mp_spdz.dialects import dialect_of
from mpcc.compiler.cost import PROTOCOLS
from mpcc.compiler.driver.choose import sentence
from mpcc.inspection import groups, operations, roles, shared_tensors

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import LowRank, Manifest
    from mpcc.compiler.cost import Cost, Network
    from mpcc.compiler.driver.savings import Saving
    from mpcc.compiler.frontend.numbers_in_code import PublicNumber
    from mpcc.compiler.lowering.used_forms import UsedForm
    from mpcc.program import Program
    from mpcc.result import Result

_SHOWN_LABELS = 24


def size(number: float | None) -> str:
    """Bytes for people: 1.2 kB, 3.4 MB."""
    if number is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f} B"


def _table(title: str, *columns: str) -> Table:
    """Numbers stand right: every column whose name is among the known numeric ones."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numeric = {
        "tensors",
        "bytes",
        "MB",
        "count",
        "elements",
        "rounds",
        "operations",
        "estimated",
        "measured",
        "seconds",
        "source",
    }
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(escape(str(c)) for c in cells))


# ** inspect **
def show_program(console: Console, program: Program, network: str | Network | None, keys: Iterable[str]) -> None:
    """Everything about a program: head, evidence, roles, costs, approximations."""
    manifest = program.bundle.manifest
    security = PROTOCOLS[manifest.protocol].security
    console.print(f"[bold]{escape(manifest.architecture or 'model')}[/bold], compiled by mpcc {manifest.mpcc}")
    console.print(f"protocol {manifest.protocol}: {security}", markup=False)
    console.print(
        f"{dialect_of(manifest.protocol).domain}, {manifest.frac_bits} fractional bits, "
        f"truncation {manifest.truncation}; source of {program.source.count(chr(10))} lines",
        markup=False,
    )
    if manifest.local_truncations:
        console.print(
            f"profile {manifest.profile}: {manifest.local_truncations:,} elements are truncated locally; the chance "
            f"that one of them fails is 2^{math.log2(manifest.failure_probability):.1f} per inference",
            markup=False,
        )
    numbers = [_numbers(manifest.numbers)] if manifest.numbers else []
    low_rank = [_low_rank(manifest.low_rank)] if manifest.low_rank else []
    for table in (_signature(program), _evidence(program), *numbers, *low_rank, _roles(program)):
        console.print()
        console.print(table)
    for key in keys:
        console.print()
        console.print(_costs(program, network, key))
    console.print()
    _totals(console, program.cost(network))
    if manifest.approximations:
        console.print()
        console.print(_approximations(manifest.approximations))
    if manifest.savings:
        console.print()
        console.print(_savings(manifest.savings))


def _signature(program: Program) -> Table:
    table = _table("Inputs and outputs", "name", "shape", "of")
    for spec in program.bundle.manifest.inputs:
        ids = f", ids 0 to {spec.highest}" if spec.highest is not None else ""
        _add(
            table,
            spec.name,
            list(spec.shape),
            f"input of the client, {spec.role if spec.role == 'public' else 'secret'}{ids}",
        )
    for output in program.bundle.manifest.outputs:
        how = "computed by the client alone" if output.clear else "revealed to the client"
        _add(table, output.name, list(output.shape), f"output, {how}")
    return table


def _evidence(program: Program) -> Table:
    table = _table("Weights and the evidence", "layers", "visibility", "tensors", "bytes", "because")
    evidence = program.bundle.manifest.evidence
    for group in groups(evidence):
        _add(table, group.layers, group.visibility, group.tensors, size(group.bytes), group.reason)
    for word, visibility in (("public", "public"), ("private", "provider")):
        chosen = [e for e in evidence if e.visibility == visibility]
        _add(table, "all", word, len(chosen), size(sum(e.bytes for e in chosen)), "")
    return table


def _numbers(found: Iterable[PublicNumber]) -> Table:
    table = _table("Numbers in the model's code, public", "layer", "operation", "value", "times", "source")
    for n in found:
        _add(table, n.layer, f"{n.operation} {n.attribute}", f"{n.value:.10g}", n.times, n.source)
    return table


def _low_rank(found: Iterable[LowRank]) -> Table:
    table = _table(
        "Recovered low-rank updates: the base's weight and an adapter stand in for the weight",
        "weight",
        "rank",
        "of",
        "lost of the update, at most",
        "lost of the weight, at most",
    )
    for r in found:
        _add(table, r.tensor, r.rank, r.full_rank, f"{r.error_of_update:.3g}", f"{r.error_of_weight:.3g}")
    worst = max((r.error_of_update for r in found), default=0.0), max((r.error_of_weight for r in found), default=0.0)
    _add(table, "all", "", "", *(f"{e:.3g}" for e in worst))
    return table


def _roles(program: Program) -> Table:
    table = _table("Who computes and learns what", "who", "operations", "gives", "learns")
    facts = roles(program)
    for who in (w for w in facts if w != "everybody"):
        _add(table, who, facts[who].operations, _gives(who, program), ", ".join(facts[who].learns))
    _add(table, "MPC", operations(program)["mpc"], "", "nothing but the outputs is opened")
    everybody = facts["everybody"]
    _add(table, "everybody", everybody.operations, "", ", ".join(everybody.learns))
    return table


def _gives(who: str, program: Program) -> str:
    """What a role shares and holds."""
    facts = roles(program)[who]
    if who == "provider":
        return f"shares {size(facts.shared_bytes)} of weights, once"
    if who != "client":
        return ""
    shared = ", ".join(
        f"{t.name} {list(t.shape)} ({size(t.bytes)}{', open to all' if t.public else ''})"
        for t in shared_tensors(program.bundle.ring)
    )
    return f"shares {shared or 'nothing'}; holds {size(facts.weight_bytes)} of public weights"


def _costs(program: Program, network: str | Network | None, key: str) -> Table:
    table = _table(f"Cost by {key}", key, "count", "elements", "bytes", "rounds")
    for row in program.cost(network, by=key).rows:
        name = getattr(row, key) or "(the model itself)"
        _add(
            table,
            name,
            f"{row.count:,}",
            f"{row.elements:,}",
            size(row.bytes),
            f"{max(row.rounds_by_party, default=0):,}",
        )
    return table


def _totals(console: Console, cost: Cost) -> None:
    console.print("[bold]One inference[/bold]")
    console.print(
        f"  {size(cost.bytes_online)} ({cost.bytes_online:,} bytes over all parties), {cost.rounds:,} rounds, about "
        f"{cost.seconds:.2f} s of network time on {cost.network}",
        markup=False,
    )
    console.print(f"  offline {size(cost.bytes_offline)}; inputs and outputs {size(cost.input_bytes)}", markup=False)
    console.print(f"Once per deployment: {size(cost.provisioning_bytes)} to share the private weights", markup=False)


def _approximations(used: Iterable[UsedForm]) -> Table:
    table = _table("Approximations", "operation", "form", "count", "valid for", "error at most", "model")
    for a in used:
        error = "" if a.error is None else f"{a.error:.1e}{' relative' if a.relative else ''}"
        _add(table, a.operation, a.form, a.count, a.domain, error, "CHANGED" if a.changes_model else "kept")
    return table


# ** what was chosen, and what it is worth **
def show_alternatives(console: Console, manifest: Manifest) -> None:
    """The forms of the program that were considered for its network, and in one sentence why one won."""
    if not manifest.alternatives:
        console.print(
            "The bundle does not say what else was considered: there was no choice, or an older mpcc made it."
        )
        return
    table = _table(f"Forms considered for {manifest.network}", "", "form", "MB", "rounds", "seconds", "difference")
    for a in manifest.alternatives:
        mark = "*" if a.chosen else ""
        _add(table, mark, a.name, f"{a.bytes / 1e6:.3f}", f"{a.rounds:,}", f"{a.seconds:.4g}", a.why)
    console.print(table)
    console.print()
    for a in manifest.alternatives:
        console.print(f"  {a.name}: {a.reason}", markup=False)
    console.print()
    console.print(sentence(manifest.alternatives, manifest.network.name), markup=False)


def _savings(found: Iterable[Saving]) -> Table:
    table = _table("What each pass saves of an inference, estimated", "without", "bytes", "rounds", "source", "")
    for s in found:
        if s.problem:
            _add(table, s.without, "", "", "", f"does not compile: {s.problem}")
        else:
            _add(table, s.without, f"{s.bytes:+,}", f"{s.rounds:+,}", f"{s.source_bytes:+,} B", "")
    return table


# ** run **
def show_result(console: Console, result: Result, labels: Mapping[int, str]) -> None:
    """Outputs, then estimate and measurement side by side."""
    show_outputs(console, result, labels)
    console.print()
    console.print(_comparison(result))


def show_outputs(console: Console, result: Result, labels: Mapping[int, str]) -> None:
    """Outputs, as labels where they are known."""
    for name, tensor in result.outputs.items():
        shown = [f"{v:.4f}" for v in tensor.reshape(-1)[:8].tolist()]
        rest = f" ... ({tensor.numel()} values)" if tensor.numel() > 8 else ""
        console.print(f"{name} {list(tensor.shape)}: {' '.join(shown)}{rest}", markup=False)
        if chosen := chosen_labels(name, tensor, labels):
            more = " ..." if len(chosen) > _SHOWN_LABELS else ""
            console.print(f"label: {' '.join(chosen[:_SHOWN_LABELS])}{more}", markup=False, style="bold")


def _comparison(result: Result) -> Table:
    """Estimate and measurement, line by line."""
    table = _table(f"Engine {result.engine}", "what", "estimated", "measured")
    estimated, measured = result.estimated, result.measured
    sent: tuple[str, ...] = ("none",) * 4
    if measured is not None:
        numbers = (measured.bytes_online, measured.rounds, measured.input_bytes, measured.provisioning_bytes)
        sent = tuple(f"{n:,}" for n in numbers)
    seconds = result.seconds if measured is None else measured.seconds
    _add(table, "bytes", f"{estimated.bytes_online:,}", sent[0])
    by_party = measured.bytes_by_party if measured is not None else ()
    for number, (name, own) in enumerate(zip(_players(estimated), estimated.bytes_by_party, strict=False)):
        _add(table, f"  sent by the {name}", f"{own:,}", f"{by_party[number]:,}" if number < len(by_party) else "none")
    _add(table, "  of these offline", f"{estimated.bytes_offline:,}", "" if estimated.bytes_offline else "0")
    _add(table, "rounds", f"{estimated.rounds:,}", sent[1])
    _add(table, "seconds", f"{estimated.seconds:.2f} (network, {estimated.network.name})", f"{seconds:.2f}")
    _add(table, "bytes of inputs and outputs", f"{estimated.input_bytes:,}", sent[2])
    _add(table, "bytes to share the weights", f"{estimated.provisioning_bytes:,}", sent[3])
    return table


def _players(estimated: Cost) -> tuple[str, ...]:
    """The roles by player; numbers where the engine does not know the protocol."""
    from mpcc.runtime.mp_spdz.home import SETUPS

    setup = SETUPS.get(estimated.protocol)
    return setup.roles if setup is not None else tuple(f"party {i}" for i in range(len(estimated.bytes_by_party)))


def chosen_labels(name: str, tensor: torch.Tensor, labels: Mapping[int, str]) -> list[str]:
    """The label with the largest logit of every row; empty where the output is not logits over the labels."""
    if name != "logits" or not tensor.dim() or not labels or tensor.shape[-1] != len(labels) or len(labels) < 2:
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
        "estimated": result.estimated.to_json() | {"engine": "mp-spdz"},
        "warnings": list(result.warnings),
    }
