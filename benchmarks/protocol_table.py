"""Rows of benchmarks/protocols.py, in JSON and in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "protocols"
HEADINGS = (
    "protocol",
    "tokens, private layers",
    "reviews",
    "labels equal",
    "logits differ by",
    "bytes estimated",
    "measured",
    "by party",
    "estimated offline",
    "rounds estimated",
    "measured",
    "seconds",
    "weights: bytes, seconds",
    "load",
)


@dataclass(frozen=True)
class Row:
    """One protocol on one model. Bytes, rounds and seconds of an inference (mean of all), without weights and input.

    Bytes are over all parties, or by party with the client first; rounds are the busiest party's, seconds the slowest
    one's. `load` is the machine's load average when the run began; `stored` says that shares were provisioned before.
    """

    key: str
    protocol: str
    shape: str
    tokens: int
    private_layers: int
    truncation: str
    reviews: int
    labels_equal: int
    max_error: float
    estimated_bytes: int
    estimated_bytes_by_party: tuple[int, ...]
    estimated_offline: int
    estimated_rounds: int
    bytes: int
    bytes_by_party: tuple[int, ...]
    rounds: int
    seconds: float
    weights_bytes: int
    weights_seconds: float
    stored: bool
    load: float


def read_rows(out: Path) -> dict[str, Row]:
    """The rows of an earlier run, by key; none if there was none."""
    path = out / f"{NAME}.json"
    if not path.is_file():
        return {}
    return {row["key"]: Row(**row) for row in json.loads(path.read_text("utf-8"))["rows"]}


def write_rows(out: Path, rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """Write protocols.md and protocols.json; the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(rows)
    head = "".join(f"- {key}: {value}\n" for key, value in about.items())
    (out / f"{NAME}.md").write_text(f"{head}\n{table}", "utf-8")
    data = {"about": dict(about), "rows": [asdict(row) for row in rows]}
    (out / f"{NAME}.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    return table


def markdown(rows: Sequence[Row]) -> str:
    """One line per row."""
    return "\n".join([_line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(_cells(row)) for row in rows)]) + "\n"


def size(number: float) -> str:
    """Bytes with three digits and a decimal unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            value = number / factor
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
    return f"{number:.0f} B"


def _cells(row: Row) -> list[str]:
    weights = f"{size(row.weights_bytes)}, {row.weights_seconds:.1f}" + ("" if row.stored else " (every session)")
    return [
        f"`{row.protocol}`",
        f"{row.shape}; {row.truncation}",
        str(row.reviews),
        f"{row.labels_equal} of {row.reviews}",
        f"{row.max_error:.1e}",
        size(row.estimated_bytes),
        size(row.bytes),
        " / ".join(size(b) for b in row.bytes_by_party),
        size(row.estimated_offline) if row.estimated_offline else "",
        f"{row.estimated_rounds:,}",
        f"{row.rounds:,}",
        f"{row.seconds:.2f}",
        weights,
        f"{row.load:.0f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
