"""What one inference of a trained variant costs: estimated on every protocol, measured where a run takes minutes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.marill_tasks import TOKENS, Task
from benchmarks.marill_variants import OUT, Variant, folder_of
from examples.sentiment.data import base_folder
from mpcc.api import compile as compile_program
from mpcc.compiler.frontend.partition import Partition
from mpcc.marill.prefix import Example, padded_ids
from mpcc.marill.saving import load
from mpcc.program import Program

PROTOCOLS = ("ring", "dealer-ring", "semi2k", "hemi")
SAMPLES, CHECKED = 8, 5
RUNS = {"ring": 3, "dealer-ring": 3}  # of two parties alone one: it takes minutes
MEASURED_BELOW = 60e9  # bytes; more takes longer than ten minutes here


@dataclass(frozen=True)
class CostRecord:
    """Estimates, and, where it was run, what was measured; `labels` counts equal labels on the emulator."""

    variant: str
    protocol: str
    bytes_online: int
    rounds: int
    seconds_lan: float
    seconds_wan: float
    measured_bytes: int | None = None
    measured_rounds: int | None = None
    measured_seconds: float | None = None
    labels: int | None = None
    checked: int = 0


def path_of(variant: Variant, protocol: str, out: Path = OUT) -> Path:
    """Where a record is."""
    return out / "costs" / f"{variant.name}-{protocol}.json"


def record_of(variant: Variant, protocol: str, out: Path = OUT) -> CostRecord | None:
    """The record, if there is one."""
    path = path_of(variant, protocol, out)
    return CostRecord(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


def estimated(task: Task, variant: Variant, protocol: str, out: Path = OUT) -> CostRecord:
    """Compile the variant of seed 0 and estimate; kept in a file."""
    known = record_of(variant, protocol, out)
    if known is not None:
        return known
    program = compiled(task, variant, protocol, out)
    lan, wan = program.cost("lan"), program.cost("wan")
    record = CostRecord(variant.name, protocol, lan.bytes_online, lan.rounds, lan.seconds, wan.seconds)
    _write(record, variant, out)
    program.save(path_of(variant, protocol, out).with_suffix(".mpc"))
    return record


def compiled(task: Task, variant: Variant, protocol: str, out: Path = OUT) -> Program:
    """The variant of seed 0 at TOKENS tokens, calibrated on training texts."""
    model = load(folder_of(task, variant, 0, out), base_folder())
    partition = Partition.from_peft(base_folder()) if variant.rank else Partition.from_base(base_folder())
    calibration = [inputs(e) for e in task.encode(task.train[:SAMPLES])]
    return compile_program(model, None, partition, calibration, protocol=protocol, sequence_length=TOKENS)


def inputs(example: Example) -> dict[str, object]:
    """A text as an input of TOKENS tokens."""
    filler = Example(torch.zeros(TOKENS, dtype=torch.int64))
    ids, mask = padded_ids([example, filler], 0)
    return {"input_ids": ids[:1], "attention_mask": mask[:1]}


def measured(task: Task, variant: Variant, protocol: str, out: Path = OUT) -> CostRecord:
    """Run one test text on real parties on this machine, unless it was, or would take too long.

    The seconds are those of the fastest run: other work on the machine makes runs slower, never faster.
    """
    from mpcc.loading import load as load_program

    record = estimated(task, variant, protocol, out)
    if record.measured_bytes is not None or record.bytes_online > MEASURED_BELOW:
        return record
    program = load_program(path_of(variant, protocol, out).with_suffix(".mpc"))
    given = inputs(task.encode(task.test[:1])[0])
    runs = [m for _ in range(RUNS.get(protocol, 1)) if (m := program.run(given, "mp-spdz").measured) is not None]
    if not runs:
        return record
    fastest = min(runs, key=lambda m: m.seconds)
    record = replace(
        record, measured_bytes=fastest.bytes_online, measured_rounds=fastest.rounds, measured_seconds=fastest.seconds
    )
    _write(record, variant, out)
    return record


def checked(task: Task, variant: Variant, protocol: str, out: Path = OUT) -> CostRecord:
    """Compare labels of the secure program on the emulator with PyTorch's."""
    from mpcc.loading import load as load_program

    record = estimated(task, variant, protocol, out)
    if record.checked:
        return record
    model = load(folder_of(task, variant, 0, out), base_folder()).eval()
    program = load_program(path_of(variant, protocol, out).with_suffix(".mpc"))
    equal = 0
    for example in task.encode(task.test[:CHECKED]):
        given = inputs(example)
        with torch.no_grad():
            expected = model(**given).logits
        equal += int(program.run(given, "emulator").outputs["logits"].argmax() == expected.argmax())
    record = replace(record, labels=equal, checked=CHECKED)
    _write(record, variant, out)
    return record


def _write(record: CostRecord, variant: Variant, out: Path) -> None:
    path = path_of(variant, record.protocol, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
    beside.replace(path)
