"""Tables and the plot of docs/marill.md, from the records below `build/marill`."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from benchmarks.marill_costs import PROTOCOLS, CostRecord
from benchmarks.marill_costs import record_of as cost_of
from benchmarks.marill_tasks import TASKS, TOKENS, Task
from benchmarks.marill_variants import LAYERS, STANDARD, VARIANTS, Variant, record_of

ROWS = ("standard", "freeze", "lora", "merge", "approximate", "all", "all-5")
SEEDS = 3
SETTINGS = {
    "ring": "three parties",
    "dealer-ring": "two parties and a dealer",
    "semi2k": "two parties alone, oblivious transfer",
    "hemi": "two parties alone, homomorphic encryption",
}

PREFACE = f"""# Marill's techniques on MiniLM-L6

Written by `python -m benchmarks.marill tables`; how each technique is done is in [marill.md](marill.md).

* Base all-MiniLM-L6-v2, {TOKENS} tokens, profile `default`. Film reviews: 1,500 sentences to train on, 1,000 to test.
  BBC topics: 800 and 500. Epochs and rates are the same for both (`benchmarks/marill_variants.py`).
* Standard fine-tuning trains all layers, pooler and classifier. Embeddings stay public in every row.
* "kept" is the mean accuracy as a share of the standard's over the same seeds.
* Costs are of film reviews with seed 0, one inference. **Bold** is measured on real parties on one machine of 2 cores:
  the fastest of 3 runs while nothing else ran, for two parties alone one run beside other work. All else is estimated.
  Seconds on one machine vary by a quarter from run to run; bytes and rounds do not.
  Seconds on LAN (1 Gbit/s, 0.5 ms) and WAN (100 Mbit/s, 40 ms) are the network's time alone. A factor compares with
  standard fine-tuning, both compiled by mpcc.

![accuracy and bytes over frozen layers](marill-curve.svg)"""


def page() -> str:
    """All tables."""
    parts = [PREFACE, accuracy_table(), labels_line(), *(cost_table(protocol) for protocol in PROTOCOLS), curve_table()]
    return "\n\n".join(part for part in parts if part) + "\n"


def accuracies(task: Task, variant: Variant) -> list[float]:
    """Accuracy by seed, as far as trained."""
    found = (record_of(task, variant, seed) for seed in range(SEEDS))
    return [record["accuracy"] for record in found if record is not None]


def accuracy_table() -> str:
    """Accuracy by seed, and the mean as a share of the standard's over the same seeds."""
    titles = " | ".join(f"{make().title}, seeds 0, 1, 2 | kept" for make in TASKS.values())
    lines = ["### Accuracy", "", f"| variant | {titles} |", "|---" * (1 + 2 * len(TASKS)) + "|"]
    for name in ROWS:
        cells = []
        for make in TASKS.values():
            task = make()
            found, standard = accuracies(task, VARIANTS[name]), accuracies(task, STANDARD)
            seeds = min(len(found), len(standard))
            kept = f"{mean(found[:seeds]) / mean(standard[:seeds]):.1%}" if seeds else "not run"
            cells += [" ".join(f"{100 * a:.1f}" for a in found) or "not run", kept]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def labels_line() -> str:
    """How often the secure program's label is PyTorch's, on the emulator."""
    found = [c for v in VARIANTS.values() if (c := cost_of(v, "ring")) is not None and c.checked]
    equal, checked = sum(c.labels or 0 for c in found), sum(c.checked for c in found)
    return (
        f"The compiled programs give PyTorch's label for {equal} of {checked} texts (emulator, ring)."
        if checked
        else ""
    )


def cost_table(protocol: str) -> str:
    """Bytes, rounds and seconds of one inference; measured ones in bold."""
    standard = cost_of(STANDARD, protocol)
    if standard is None:
        return ""
    lines = [
        f"### {protocol}: {SETTINGS[protocol]}",
        "",
        "| variant | MB | rounds | s, one machine | s on LAN, estimated | s on WAN, estimated | bytes | LAN | WAN "
        "| one machine |",
        "|---" * 10 + "|",
    ]
    for name in ROWS:
        record = cost_of(VARIANTS[name], protocol)
        if record is not None:
            lines.append(_cost_row(VARIANTS[name], record, standard))
    return "\n".join(lines)


def _cost_row(variant: Variant, record: CostRecord, standard: CostRecord) -> str:
    ratios = (
        standard.bytes_online / record.bytes_online,
        standard.seconds_lan / record.seconds_lan,
        standard.seconds_wan / record.seconds_wan,
    )
    run = standard.measured_seconds and record.measured_seconds
    faster = f"{standard.measured_seconds / record.measured_seconds:.1f}x" if run else ""  # type: ignore[operator]
    seconds = "" if record.measured_seconds is None else f"**{record.measured_seconds:.1f}**"
    cells = (
        _either(record.measured_bytes, record.bytes_online, 1e6),
        _either(record.measured_rounds, record.rounds, 1),
        seconds,
        f"{record.seconds_lan:,.2f}",
        f"{record.seconds_wan:,.1f}",
        *(f"{r:,.1f}x" for r in ratios),
        faster,
    )
    return f"| {variant.title} | {' | '.join(cells)} |"


def _either(measured: int | None, estimated: int, unit: float) -> str:
    digits = 1 if unit > 1 else 0
    if measured is not None:
        return f"**{measured / unit:,.{digits}f}**"
    return f"{estimated / unit:,.{digits}f}"


def curve() -> list[tuple[int, float, dict[str, CostRecord]]]:
    """(frozen layers, accuracy on film reviews with seed 0, cost by protocol), as far as known."""
    task, points = TASKS["films"](), []
    for frozen in range(LAYERS + 1):
        variant = VARIANTS[{0: "standard", 4: "freeze"}.get(frozen, f"freeze-{frozen}")]
        record = record_of(task, variant, 0)
        costs = {p: c for p in PROTOCOLS if (c := cost_of(variant, p)) is not None}
        if record is not None:
            points.append((frozen, record["accuracy"], costs))
    return points


def curve_table() -> str:
    """Accuracy and cost over the number of frozen layers."""
    lines = [
        "### Frozen layers",
        "",
        "| frozen layers of 6 | accuracy, film reviews, seed 0 | " + " | ".join(f"MB, {p}" for p in PROTOCOLS) + " |",
        "|---" * (2 + len(PROTOCOLS)) + "|",
    ]
    for frozen, accuracy, costs in curve():
        cells = [f"{costs[p].bytes_online / 1e6:,.1f}" if p in costs else "" for p in PROTOCOLS]
        lines.append(f"| {frozen} | {accuracy:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(path: Path) -> None:
    """Accuracy and bytes over the frozen layers, as a picture."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "mpcc"
    points = curve()
    figure, left = plt.subplots(figsize=(6, 3.6), layout="constrained")
    left.plot([p[0] for p in points], [100 * p[1] for p in points], "o-", color="tab:blue", label="accuracy")
    left.set_xlabel(f"frozen layers of {LAYERS}")
    left.set_ylabel("accuracy on film reviews, %", color="tab:blue")
    right = left.twinx()
    styles = {"ring": "s--", "dealer-ring": "^--", "semi2k": "v--", "hemi": "d--"}
    for protocol in PROTOCOLS:
        known = [(frozen, costs[protocol]) for frozen, _, costs in points if protocol in costs]
        most = max((c.bytes_online for _, c in known), default=1)
        right.plot(
            [f for f, _ in known],
            [100 * c.bytes_online / most for _, c in known],
            styles[protocol],
            color="tab:gray",
            label=f"bytes, {protocol}",
        )
    right.set_ylabel("bytes, % of no frozen layer", color="tab:gray")
    right.set_ylim(bottom=0)
    right.legend(loc="lower left", frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
