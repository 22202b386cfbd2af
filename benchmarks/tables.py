"""Results as rows, in JSON and in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One compiler on one subject. What was not measured is None; `note` says what else has to be known."""

    subject: str
    title: str
    compiler: str
    bytes: int | None = None
    rounds: int | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    byte_code: int | None = None
    max_error: float | None = None
    mean_error: float | None = None
    labels: str = ""
    output: str = ""
    estimated_bytes: int | None = None
    failure_bits: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A share of an estimated cost."""

    name: str
    bytes: int
    rounds: int


HEADINGS = (
    "compiler",
    "MB",
    "rounds",
    "seconds",
    "compile s",
    "byte code kB",
    "error max",
    "mean",
    "labels equal",
    "failure",
    "bytes vs importer",
    "seconds vs importer",
    "note",
)


def markdown(rows: Sequence[Row]) -> str:
    """One table per subject."""
    blocks = []
    for title in dict.fromkeys(row.title for row in rows):
        own = [row for row in rows if row.title == title]
        peer = next((row for row in own if row.compiler == "importer"), None)
        lines = [f"### {title}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(_cells(row, peer)) for row in own]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def ablation_table(title: str, rows: Sequence[tuple[str, int, int, str]]) -> str:
    """Rows are (pass switched off, bytes, rounds, problem); the first one has all passes."""
    base = rows[0]
    lines = [
        f"### {title}, estimated",
        "",
        _line(("without", "MB", "rounds", "difference MB", "rounds", "")),
        _line(["---"] * 6),
    ]
    for name, size, rounds, problem in rows:
        if problem:
            lines.append(_line((name, "-", "-", "-", "-", problem)))
            continue
        more = (f"{(size - base[1]) / 1e6:+.3f}", f"{rounds - base[2]:+d}") if name else ("", "")
        lines.append(_line((name or "(all passes on)", f"{size / 1e6:.3f}", str(rounds), *more, "")))
    return "\n".join(lines) + "\n"


def parts_table(title: str, parts: Sequence[Part]) -> str:
    """The largest first."""
    total = sum(part.bytes for part in parts) or 1
    lines = [f"### {title}", "", _line(("", "MB", "share", "rounds")), _line(["---"] * 4)]
    lines += [
        _line((part.name, f"{part.bytes / 1e6:.3f}", f"{100 * part.bytes / total:.1f} %", str(part.rounds)))
        for part in sorted(parts, key=lambda p: -p.bytes)
    ]
    return "\n".join(lines) + "\n"


def write(out: Path, rows: Sequence[Row], texts: Sequence[str], about: dict[str, str]) -> None:
    """compare.md and compare.json."""
    out.mkdir(parents=True, exist_ok=True)
    head = "".join(f"- {key}: {value}\n" for key, value in about.items())
    (out / "compare.md").write_text("\n".join([head, markdown(rows), *texts]), "utf-8")
    data = {"about": about, "rows": [asdict(row) for row in rows], "texts": list(texts)}
    (out / "compare.json").write_text(json.dumps(data, indent=1), "utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row, peer: Row | None) -> list[str]:
    failure = "" if row.failure_bits is None else f"2^-{row.failure_bits:.1f}"
    return [
        row.compiler,
        _number(row.bytes, 1e6, 2),
        "" if row.rounds is None else str(row.rounds),
        _number(row.seconds, 1, 3),
        _number(row.compile_seconds, 1, 1),
        _number(row.byte_code, 1e3, 0),
        _error(row.max_error),
        _error(row.mean_error),
        row.labels,
        failure,
        _ratio(row.bytes, peer.bytes if peer and peer is not row else None),
        _ratio(row.seconds, peer.seconds if peer and peer is not row else None),
        row.note,
    ]


def _number(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:.{digits}f}"


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _ratio(value: float | None, peer: float | None) -> str:
    """How many times less than the importer."""
    return (
        "" if not value or not peer else f"{peer / value:.1f}x less" if peer >= value else f"{value / peer:.1f}x more"
    )
