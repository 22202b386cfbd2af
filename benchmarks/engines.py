"""The sentiment classifier on every secure engine: labels against PyTorch's, and what an inference costs.

    MP_SPDZ_HOME=... python -m benchmarks.engines --only aby3-small --only cheetah-small

Everything goes through the command line, as a user would type it: one session for all reviews. Bytes, messages and
seconds are those of an inference (mean), without sharing the weights. Rows of other runs are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.classifiers import SHAPES, Files, write_shape
from examples.sentiment.data import base_folder

HEAD = (
    "engine",
    "program",
    "reviews",
    "labels equal",
    "logits differ by",
    "MB",
    "by party",
    "rounds or messages",
    "seconds",
    "input and output kB",
    "weights, once: MB",
    "seconds",
    "load",
)


@dataclass(frozen=True)
class Case:
    """One row: an engine with its options, the shape of the model, and how many reviews."""

    engine: str
    options: tuple[str, ...]
    shape: str
    reviews: int


def _spu(protocol: str) -> tuple[str, ...]:
    return ("--engine", "spu", "--spu-protocol", protocol)


CASES: Mapping[str, Case] = {
    "ring-small": Case("MP-SPDZ ring", ("--engine", "mp-spdz"), "small", 20),
    "aby3-small": Case("SPU ABY3", _spu("aby3"), "small", 20),
    "cheetah-small": Case("SPU CHEETAH", _spu("cheetah"), "small", 2),
    "semi2k-small": Case("SPU SEMI2K, trusted first party", _spu("semi2k-trusted-first-party"), "small", 2),
    "ring": Case("MP-SPDZ ring", ("--engine", "mp-spdz"), "whole", 20),
    "aby3": Case("SPU ABY3", _spu("aby3"), "whole", 20),
}


def measure(case: Case, folder: Path) -> list[str]:
    """Compile the shape, run one case in a session; the cells of its row."""
    shape = SHAPES[case.shape]
    files = write_shape(shape, folder / f"{shape.name}-{case.reviews}", case.reviews)
    program = folder / f"{shape.name}.mpc"
    if not program.exists():
        _mpcc(
            "compile",
            files.model,
            "--base",
            base_folder(),
            "--calibration",
            files.calibration,
            "--sequence-length",
            str(shape.tokens),
            "-o",
            program,
        )
    load = os.getloadavg()[0]
    answers = json.loads(_mpcc("run", program, "--input", files.reviews, *case.options, "--json"))
    return [
        case.engine,
        shape.title,
        *_cells(files, answers if isinstance(answers, list) else [answers]),
        f"{load:.0f}",
    ]


def _mpcc(*arguments: str | Path) -> str:
    """Run an mpcc command and return what it printed."""
    words = [str(a) for a in arguments]
    done = subprocess.run([sys.executable, "-m", "mpcc", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _cells(files: Files, answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over the inferences, and the comparison with PyTorch on the same model and inputs."""
    equal, largest = 0, 0.0
    for review, answer in zip(json.loads(files.reviews.read_text("utf-8")), answers, strict=True):
        with torch.no_grad():
            want = files.torch_model(**{name: torch.tensor(value) for name, value in review.items()}).logits
        found = torch.tensor(answer["outputs"]["logits"])
        equal += int(found.argmax() == want.argmax())
        largest = max(largest, float((found - want).abs().max()))
    costs = [answer["measured"] for answer in answers]
    by_party = [_mean([c["bytes_by_party"][i] for c in costs]) / 1e6 for i in range(len(costs[0]["bytes_by_party"]))]
    return [
        str(len(answers)),
        f"{equal} of {len(answers)}",
        f"{largest:.1e}",
        f"{sum(by_party):.1f}",
        " / ".join(f"{b:.1f}" for b in by_party),
        f"{_mean([c['rounds'] for c in costs]):,.0f}",
        f"{_mean([c['seconds'] for c in costs]):.2f}",
        f"{_mean([c['input_bytes'] for c in costs]) / 1e3:.0f}",
        f"{costs[0]['provisioning_bytes'] / 1e6:.1f}",
        f"{costs[0]['provisioning_seconds']:.1f}",
    ]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the programs and engines.md.")] = Path(
        "build/benchmarks/engines"
    ),
    only: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(CASES)}.")] = None,
) -> None:
    """Measure the cases one after the other; the table is written after each."""
    if unknown := set(only or ()) - set(CASES):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}")
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "engines.json"
    rows: dict[str, list[str]] = json.loads(stored.read_text("utf-8")) if stored.exists() else {}
    for key in only or CASES:
        rows[key] = measure(CASES[key], out)
        stored.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        lines = [HEAD, ["---"] * len(HEAD), *(rows[k] for k in CASES if k in rows)]
        (out / "engines.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), "utf-8")
        typer.echo(f"{key}: {', '.join(rows[key])}")


if __name__ == "__main__":
    typer.run(main)
