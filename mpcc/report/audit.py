"""How the command line shows what a role is about to take part in: all of it as tables, or a few lines before a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mpcc.audit import EACH, OPEN, Audit, Failure, Part
from mpcc.extraction import Extraction
from mpcc.report.program import evidence_table, low_rank_table, numbers_table
from mpcc.report.tables import add, table_of
from mpcc.sizes import size

FEW = 6  # tensors that are named one by one


def show_audit(console: Console, audited: Audit, role: str | None = None) -> None:
    """Everything, for one role or for all."""
    manifest = audited.bundle.manifest
    whose = f"for the {role}" if role is not None else "for all roles"
    console.print(f"{manifest.architecture or 'model'}, compiled by mpcc {manifest.mpcc}: {whose}", markup=False)
    console.print(f"protocol {audited.protocol.name}: {audited.protocol.security}", markup=False)
    console.print("The files pass the checks that every role makes before a run; nothing of them was run.")
    tables = [_given(audited, role), _opened(audited), _learns(audited, role)]
    if manifest.reduced:
        console.print("This is the helper's part: it does not say what the model is, takes or tells.")
    else:
        tables.append(evidence_table(manifest.evidence))
    tables += [numbers_table(manifest.numbers)] if manifest.numbers else []
    tables += [low_rank_table(manifest.low_rank)] if manifest.low_rank else []
    for table in (*tables, _told(audited)):
        console.print()
        console.print(table)
    console.print()
    for line in (*_failure(audited.failure), *_asking(audited.asking)):
        console.print(line, markup=False)
    console.print(f"\ndigest {audited.digest}", markup=False)
    console.print(
        "All parties have to have this one: compare it, and pin it with mpcc party --accept DIGEST.", markup=False
    )


def short_lines(audited: Audit, role: str) -> list[str]:
    """What a role should know before it takes part, in a few lines."""
    part, manifest = audited.parts[role], audited.bundle.manifest
    revealed = [f"{o.name} {list(o.shape)} to the {o.to}" for o in audited.opened if not o.clear]
    protocol = audited.protocol
    return [
        f"{role} of {manifest.architecture or 'a model'}; protocol {protocol.name}: {protocol.security}",
        f"gives {_gives(part)}",
        f"opened: {', '.join(revealed) or 'nothing'}; nothing else",
        f"learns {'; '.join(part.learns)}",
        f"digest {audited.digest} (all parties have the same; --accept pins it, mpcc audit tells more)",
    ]


def _gives(part: Part) -> str:
    if not part.gives:
        return "nothing"
    each = [g for g in part.gives if g.when == EACH]
    open_to_all = [g.name for g in each if g.how == OPEN]
    words = []
    if each:
        names = [f"{g.name} {list(g.shape)}" for g in each[:FEW]] + (["..."] if len(each) > FEW else [])
        words.append(f"with each request {size(part.bytes_each)}: {', '.join(names)}")
        words.append(f"in clear to every party: {', '.join(open_to_all) or 'nothing'}")
    if once := len(part.gives) - len(each):
        words.append(f"once {size(part.bytes_once)}: {once} private weights as secret shares")
    return "; ".join(words)


# ** tables **
def _given(audited: Audit, role: str | None) -> Table:
    table = table_of("Who gives what into MPC", "who", "name", "shape", "bytes", "how", "when")
    for name, part in audited.parts.items():
        if role not in (None, name):
            continue
        if not part.gives:
            add(table, name, "nothing", "", "", "", "")
        for g in part.gives:
            add(table, name, g.name, list(g.shape), f"{g.bytes:,}", g.how, g.when)
    return table


def _opened(audited: Audit) -> Table:
    table = table_of("What is opened, and to whom", "name", "shape", "to")
    for o in audited.opened:
        add(table, o.name, list(o.shape), "nobody: the client computes it alone" if o.clear else f"the {o.to}")
    add(table, "everything else", "", "nobody")
    return table


def _learns(audited: Audit, role: str | None) -> Table:
    table = table_of("Who learns what", "who", "learns")
    for name, part in audited.parts.items():
        if role in (None, name):
            add(table, name, "; ".join(part.learns))
    for line in audited.everybody_learns:
        add(table, "everybody", line)
    return table


def _told(audited: Audit) -> Table:
    table = table_of("What the program tells about the private weights", "", "count", "bits at most", "as coded", "how")
    for t in audited.told:
        coded = "" if t.coded is None else f"{t.coded:,.0f}"
        add(table, t.what, f"{t.count:,}", f"{t.at_most:,.0f}", coded, t.how)
    add(
        table,
        "all",
        "",
        f"{audited.told_at_most:,.0f}",
        f"{audited.told_coded:,.0f}",
        f"of {audited.asking.weight_bits:,} bits that the weights hold" if audited.asking.weight_bits else "",
    )
    return table


# ** sentences **
def _failure(found: Failure) -> Sequence[str]:
    if not found.local_truncations:
        return ("No truncation can fail.",)
    like = "not told here" if found.like_calibration is None else f"at most {_power(found.like_calibration)}"
    return (
        f"{found.local_truncations:,} elements are truncated locally; the chance that one fails in an inference:",
        f"  {like} for inputs like the calibration's (its author's word)",
        f"  at most {_power(found.at_bounds)} for any input whose values keep within the bounds",
    )


def _power(probability: float) -> str:
    return f"2^{math.log2(probability):.1f}" if probability > 0 else "0"


def _asking(found: Extraction) -> Sequence[str]:
    if found.answers is None:
        return ()
    return (
        f"An answer tells the client {found.answer_bits:,} bits at most that depend on the private weights, and "
        f"{found.answers:,} answers as many as these hold.",
        "The client may share what it likes in place of what it should have computed: whoever answers enough requests",
        "gives weights away (docs/security.md has a measured example).",
    )
