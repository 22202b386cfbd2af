"""How the command line shows a program and its results: rich tables, and nothing but what inspection.py gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpcc.compiler.protocols import PROTOCOLS, protocol_of
from mpcc.inspection import groups, operations, roles, sentence, shared_tensors
from mpcc.report.tables import add, table_of
from mpcc.sizes import size

if TYPE_CHECKING:
    from mpcc.compiler.bundle.manifest import Manifest
    from mpcc.compiler.cost import Cost, Network
    from mpcc.compiler.findings import Applied, Evidence, LowRank, PublicNumber, Saving
    from mpcc.program import Program


# ** inspect **
def show_program(console: Console, program: Program, network: str | Network | None, keys: Iterable[str]) -> None:
    """Everything about a program: head, evidence, roles, costs, approximations."""
    manifest = program.bundle.manifest
    security = PROTOCOLS[manifest.protocol].security
    console.print(f"[bold]{escape(manifest.architecture or 'model')}[/bold], compiled by mpcc {manifest.mpcc}")
    console.print(f"protocol {manifest.protocol}: {security}", markup=False)
    console.print(
        f"{protocol_of(manifest.protocol).domain}, {manifest.frac_bits} fractional bits, "
        f"truncation {manifest.truncation}; source of {program.source.count(chr(10))} lines",
        markup=False,
    )
    if manifest.local_truncations:
        console.print(
            f"profile {manifest.profile}: {manifest.local_truncations:,} elements are truncated locally; the chance "
            f"that one of them fails is 2^{math.log2(manifest.failure_probability):.1f} per inference",
            markup=False,
        )
    numbers = [numbers_table(manifest.numbers)] if manifest.numbers else []
    low_rank = [low_rank_table(manifest.low_rank)] if manifest.low_rank else []
    if manifest.reduced:
        console.print("the helper's part: it does not say what the model is, takes or tells", markup=False)
    else:
        for table in (_signature(program), evidence_table(manifest.evidence), *numbers, *low_rank, _roles(program)):
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
    table = table_of("Inputs and outputs", "name", "shape", "of")
    for spec in program.bundle.manifest.inputs:
        ids = f", ids 0 to {spec.highest}" if spec.highest is not None else ""
        add(
            table,
            spec.name,
            list(spec.shape),
            f"input of the client, {spec.role if spec.role == 'public' else 'secret'}{ids}",
        )
    for output in program.bundle.manifest.outputs:
        how = "computed by the client alone" if output.clear else "revealed to the client"
        add(table, output.name, list(output.shape), f"output, {how}")
    return table


def evidence_table(evidence: Sequence[Evidence]) -> Table:
    """Every weight, by layer and reason, with the evidence that makes it public or private."""
    table = table_of("Weights and the evidence", "layers", "visibility", "tensors", "bytes", "because")
    for group in groups(evidence):
        add(table, group.layers, group.visibility, group.tensors, size(group.bytes), group.reason)
    for word, visibility in (("public", "public"), ("private", "provider")):
        chosen = [e for e in evidence if e.visibility == visibility]
        add(table, "all", word, len(chosen), size(sum(e.bytes for e in chosen)), "")
    return table


def numbers_table(found: Iterable[PublicNumber]) -> Table:
    """The numbers in the model's code, which are public with their values."""
    table = table_of("Numbers in the model's code, public", "layer", "operation", "value", "times", "source")
    for n in found:
        add(table, n.layer, f"{n.operation} {n.attribute}", f"{n.value:.10g}", n.times, n.source)
    return table


def low_rank_table(found: Iterable[LowRank]) -> Table:
    """What --recover-lora found: ranks and errors."""
    table = table_of(
        "Recovered low-rank updates: the base's weight and an adapter stand in for the weight",
        "weight",
        "rank",
        "of",
        "lost of the update, at most",
        "lost of the weight, at most",
    )
    for r in found:
        add(table, r.tensor, r.rank, r.full_rank, f"{r.error_of_update:.3g}", f"{r.error_of_weight:.3g}")
    worst = max((r.error_of_update for r in found), default=0.0), max((r.error_of_weight for r in found), default=0.0)
    add(table, "all", "", "", *(f"{e:.3g}" for e in worst))
    return table


def _roles(program: Program) -> Table:
    table = table_of("Who computes and learns what", "who", "operations", "gives", "learns")
    facts = roles(program)
    for who in (w for w in facts if w != "everybody"):
        add(table, who, facts[who].operations, _gives(who, program), ", ".join(facts[who].learns))
    add(table, "MPC", operations(program)["mpc"], "", "nothing but the outputs is opened")
    everybody = facts["everybody"]
    add(table, "everybody", everybody.operations, "", ", ".join(everybody.learns))
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
    table = table_of(f"Cost by {key}", key, "count", "elements", "bytes", "rounds")
    for row in program.cost(network, by=key).rows:
        name = getattr(row, key) or "(the model itself)"
        add(
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


def _approximations(used: Iterable[Applied]) -> Table:
    table = table_of("Approximations", "operation", "form", "count", "valid for", "error at most", "model")
    for a in used:
        error = "" if a.error is None else f"{a.error:.1e}{' relative' if a.relative else ''}"
        add(table, a.operation, a.form, a.count, a.domain, error, "CHANGED" if a.changes_model else "kept")
    return table


# ** what was chosen, and what it is worth **
def show_alternatives(console: Console, manifest: Manifest) -> None:
    """The forms of the program that were considered for its network, and in one sentence why one won."""
    if not manifest.alternatives:
        console.print("Nothing else was considered: there was no choice.")
        return
    table = table_of(f"Forms considered for {manifest.network}", "", "form", "MB", "rounds", "seconds", "difference")
    for a in manifest.alternatives:
        mark = "*" if a.chosen else ""
        add(table, mark, a.name, f"{a.bytes / 1e6:.3f}", f"{a.rounds:,}", f"{a.seconds:.4g}", a.why)
    console.print(table)
    console.print()
    for a in manifest.alternatives:
        console.print(f"  {a.name}: {a.reason}", markup=False)
    console.print()
    console.print(sentence(manifest.alternatives, manifest.network.name), markup=False)


def _savings(found: Iterable[Saving]) -> Table:
    table = table_of("What each pass saves of an inference, estimated", "without", "bytes", "rounds", "source", "")
    for s in found:
        if s.problem:
            add(table, s.without, "", "", "", f"does not compile: {s.problem}")
        else:
            add(table, s.without, f"{s.bytes:+,}", f"{s.rounds:+,}", f"{s.source_bytes:+,} B", "")
    return table
