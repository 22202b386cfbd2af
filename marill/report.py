"""What `mpcc finetune` tells about its result: report.json for programs, report.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import is_peft
from mpcc.marill.families import layers_of
from mpcc.marill.prefix import Example, pad_id, padded_ids
from mpcc.marill.recipe import Recipe
from mpcc.marill.structure import structure_of
from mpcc.marill.training import Score

CALIBRATION = 8


@dataclass(frozen=True)
class Estimate:
    """Cost of one inference of the saved model, or why it is not known."""

    protocol: str
    bytes_online: int | None = None
    rounds: int | None = None
    seconds_lan: float | None = None
    seconds_wan: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """A finished recipe; `private_values` counts the numbers that were trained, `merged` heads by layer."""

    task: str
    kind: str
    layers: int
    frozen_layers: int
    private_values: int
    techniques: dict[str, object]
    merged: dict[str, list[list[int]]]
    scores: dict[str, Score]
    resumed: bool
    costs: tuple[Estimate, ...] = ()


def describe(recipe: Recipe, model: nn.Module, frozen: int, scores: Mapping[str, Score], resumed: bool) -> Report:
    """The report without costs."""
    merged = {str(k): [list(g) for g in v.groups] for k, v in structure_of(model).items() if v.groups}
    chosen = {k: v for k, v in asdict(recipe.techniques).items() if v is not None}
    values = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kind = "adapter" if is_peft(model) else "model"
    return Report(recipe.task, kind, len(layers_of(model)), frozen, values, chosen, merged, dict(scores), resumed)


def costs(model: nn.Module, base: Path, recipe: Recipe, data: Sequence[Example]) -> tuple[Estimate, ...]:
    """Estimates for the recipe's protocols, calibrated on a few training texts."""
    return tuple(_estimate(model, base, recipe, data, protocol) for protocol in recipe.report.protocols)


def _estimate(model: nn.Module, base: Path, recipe: Recipe, data: Sequence[Example], protocol: str) -> Estimate:
    from mpcc.api import compile
    from mpcc.compiler.frontend.partition import Partition

    tokens = recipe.report.tokens or recipe.data.tokens
    calibration: list[dict[str, object]] = []
    for example in data[:CALIBRATION]:
        filler = Example(data[0].ids.new_zeros(tokens))
        ids, mask = padded_ids([Example(example.ids[:tokens]), filler], pad_id(model))
        calibration.append({"input_ids": ids[:1], "attention_mask": mask[:1]})
    partition = Partition.from_peft(base) if is_peft(model) else Partition.from_base(base)
    try:
        program = compile(model, None, partition, calibration, protocol=protocol, sequence_length=tokens)
    except MpccError as error:
        return Estimate(protocol, problem=error.what.splitlines()[0])
    cost, wan = program.cost(network="lan"), program.cost(network="wan")
    return Estimate(protocol, cost.bytes_online, cost.rounds, cost.seconds, wan.seconds)


def write_report(report: Report, folder: Path) -> None:
    """Write report.json and report.md into the model's folder."""
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
    (folder / "report.md").write_text(markdown(report), "utf-8")


def markdown(report: Report) -> str:
    """The report as a page."""
    lines = [
        f"# Fine-tuned {report.kind}, {report.task}",
        "",
        f"{report.frozen_layers} of {report.layers} layers frozen; {report.private_values:,} private values.",
        "",
        "| stage | loss | accuracy |",
        "|---|---|---|",
        *(
            f"| {name} | {s.loss:.4f} | {'' if s.accuracy is None else f'{s.accuracy:.1%}'} |"
            for name, s in report.scores.items()
        ),
    ]
    if report.techniques:
        lines += ["", "| technique | options |", "|---|---|"]
        lines += [f"| {name} | {_options(value)} |" for name, value in report.techniques.items()]
    if report.costs:
        lines += [
            "",
            "Estimated for one inference:",
            "",
            "| protocol | MB | rounds | s on LAN | s on WAN |",
            "|---|---|---|---|---|",
        ]
        lines += [_cost_line(c) for c in report.costs]
    return "\n".join(lines) + "\n"


def _options(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{k} = {v}" for k, v in value.items() if v is not None)


def _cost_line(cost: Estimate) -> str:
    if cost.bytes_online is None or cost.seconds_lan is None or cost.seconds_wan is None:
        return f"| {cost.protocol} | not known: {cost.problem} | | | |"
    return (
        f"| {cost.protocol} | {cost.bytes_online / 1e6:.1f} | {cost.rounds:,} | {cost.seconds_lan:.2f} "
        f"| {cost.seconds_wan:.2f} |"
    )
