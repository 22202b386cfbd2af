"""The sentiment classifier on every protocol, by real parties: labels against PyTorch's, cost against the estimate.

    MP_SPDZ_HOME=... python -m benchmarks.protocols --only ring --only dealer-ring

Everything goes through the command line, as a user would type it: compile, provision once, run all reviews in one
session. Bytes, rounds and seconds are those of an inference (mean), without sharing weights and input. Rows of other
runs that stand in the output folder are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.classifiers import SHAPES, Files, Shape, write_shape
from benchmarks.protocol_table import Row, read_rows, write_rows
from examples.sentiment.data import base_folder
from mpcc.compiler.errors import EngineError
from mpcc.compiler.protocols import protocol_of
from mpcc.runtime.mp_spdz.home import find_home, party_binary

console = Console()


@dataclass(frozen=True)
class Case:
    """One row: a protocol, the size of the model that it can pay for, and how many reviews."""

    protocol: str
    shape: str
    reviews: int

    @property
    def key(self) -> str:
        return self.protocol if self.shape == "whole" else f"{self.protocol}-{self.shape}"


CASES: Mapping[str, Case] = {
    c.key: c
    for c in (
        Case("ring", "whole", 20),
        Case("dealer-ring", "whole", 20),
        Case("ring", "small", 20),
        Case("dealer-ring", "small", 20),
        Case("rep4-ring", "small", 20),
        Case("sy-rep-ring", "small", 5),
        Case("ps-rep-ring", "small", 3),
        Case("semi2k", "small", 3),
        Case("hemi", "small", 3),
        Case("temi", "small", 1),
        Case("ring", "lora", 20),
        Case("dealer-ring", "lora", 20),
        Case("semi2k", "lora", 3),
        Case("hemi", "lora", 3),
        Case("temi", "lora", 3),
    )
}


def measure(case: Case, folder: Path) -> Row:
    """Compile, provision and run one case in `folder`; EngineError or a failed command ends it."""
    shape, folder = SHAPES[case.shape], folder.resolve()
    files = write_shape(shape, folder / shape.name, case.reviews)
    program = folder / f"{case.key}.mpc"
    _compile(shape, files, program, case.protocol)
    provisioned: dict[str, Any] = {}
    if protocol_of(case.protocol).stored_shares:
        provisioned = json.loads(_mpcc("provision", program, "--json"))
    load = os.getloadavg()[0]
    answers = json.loads(_mpcc("run", program, "--input", files.reviews, "--engine", "mp-spdz", "--json"))
    answers = answers if isinstance(answers, list) else [answers]
    inspected = json.loads(_mpcc("inspect", program, "--json"))
    return _row(case, shape, files, answers, provisioned, str(inspected["truncation"]), load)


def _compile(shape: Shape, files: Files, program: Path, protocol: str) -> None:
    adapter = ["--peft"] if shape.lora else []
    _mpcc(
        "compile",
        files.model,
        *adapter,
        "--base",
        base_folder(),
        "--calibration",
        files.calibration,
        "--sequence-length",
        str(shape.tokens),
        "--protocol",
        protocol,
        "-o",
        program,
    )


def _mpcc(*arguments: str | Path) -> str:
    """Run an mpcc command and return what it printed."""
    words = [str(a) for a in arguments]
    done = subprocess.run([sys.executable, "-m", "mpcc", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise EngineError(f"mpcc {words[0]} ended with exit code {done.returncode}")
    return done.stdout


def _row(
    case: Case,
    shape: Shape,
    files: Files,
    answers: list[dict[str, Any]],
    provisioned: Mapping[str, Any],
    truncation: str,
    load: float,
) -> Row:
    """Means over the inferences, and the comparison with PyTorch on the same model and inputs."""
    equal, largest = 0, 0.0
    for review, answer in zip(json.loads(files.reviews.read_text("utf-8")), answers, strict=True):
        with torch.no_grad():
            want = files.torch_model(**{name: torch.tensor(value) for name, value in review.items()}).logits
        found = torch.tensor(answer["outputs"]["logits"])
        equal += int(found.argmax() == want.argmax())
        largest = max(largest, float((found - want).abs().max()))
    costs, estimated = [a["measured"] for a in answers], answers[0]["estimated"]
    parties = len(costs[0]["bytes_by_party"])
    return Row(
        key=case.key,
        protocol=case.protocol,
        shape=shape.title,
        tokens=shape.tokens,
        private_layers=shape.private_layers,
        truncation=truncation,
        reviews=len(answers),
        labels_equal=equal,
        max_error=largest,
        estimated_bytes=estimated["bytes_online"],
        estimated_bytes_by_party=tuple(estimated["bytes_by_party"]),
        estimated_offline=estimated["bytes_offline"],
        estimated_rounds=estimated["rounds"],
        bytes=_mean([c["bytes_online"] for c in costs]),
        bytes_by_party=tuple(_mean([c["bytes_by_party"][i] for c in costs]) for i in range(parties)),
        rounds=_mean([c["rounds"] for c in costs]),
        seconds=sum(c["seconds"] for c in costs) / len(costs),
        weights_bytes=int(provisioned.get("bytes", costs[0]["provisioning_bytes"])),
        weights_seconds=float(provisioned.get("seconds", costs[0]["provisioning_seconds"])),
        stored=bool(provisioned),
        load=load,
    )


def _mean(numbers: list[int]) -> int:
    return round(sum(numbers) / len(numbers))


def main(
    out: Annotated[Path, typer.Option(help="Folder for the programs, protocols.md and protocols.json.")] = Path(
        "build/benchmarks/protocols"
    ),
    only: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(CASES)}.")] = None,
) -> None:
    """Measure the cases one after the other; the tables are written after each."""
    home = find_home()
    if unknown := set(only or ()) - set(CASES):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}")
    for key in only or CASES:
        case = CASES[key]
        try:
            party_binary(home, case.protocol)
            row = measure(case, out)
        except EngineError as error:
            console.print(f"{key}: {error}", markup=False)
            continue
        rows = read_rows(out) | {key: row}
        about = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "MP-SPDZ": ".".join(map(str, home.version)),
            "cores": str(os.cpu_count()),
        }
        console.print(write_rows(out, [rows[k] for k in CASES if k in rows], about), markup=False)


if __name__ == "__main__":
    typer.run(main)
