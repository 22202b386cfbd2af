"""Inputs that share an inference: a program compiled with `--batch-size N` computes N of them in the rounds of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mpcc.compiler.errors import MpccError
from mpcc.inputs import prepare_inputs

if TYPE_CHECKING:
    from mpcc.program import Program
    from mpcc.result import Result


def joined(
    program: Program, samples: Sequence[Mapping[str, object]], batch: int, truncate: bool = False
) -> list[dict[str, torch.Tensor]]:
    """One input of the program for every `batch` of the samples, each of which is a single row; the last one is filled
    up with its last sample.

    Raises:
        MpccError: the program was compiled for another number of inputs.
        InputError: a sample does not fit, as `prepare_inputs` says.
    """
    manifest, client = program.bundle.manifest, program.bundle.client
    shapes = [spec.shape for spec in manifest.inputs] + [spec.shape for spec in manifest.outputs]
    rows = {shape[0] if shape else 0 for shape in shapes}
    if rows != {batch}:
        taken = f"{rows.pop()} at a time" if len(rows) == 1 else "no batches"
        raise MpccError(
            f"the program takes {taken}, not {batch} inputs in one inference",
            todo=f"compile it with --batch-size {batch}",
        )
    single = [replace(spec, shape=(1, *spec.shape[1:])) for spec in manifest.inputs]
    tokenizer = None if client is None else client.tokenizer_json
    prepared = [prepare_inputs(sample, single, tokenizer, truncate=truncate) for sample in samples]
    prepared += prepared[-1:] * (-len(prepared) % batch)
    groups = [prepared[start : start + batch] for start in range(0, len(prepared), batch)]
    return [{spec.name: torch.cat([row[spec.name] for row in group]) for spec in single} for group in groups]


def parted(results: Sequence[Result], count: int) -> list[Result]:
    """A result of one row for each of the `count` samples that were joined, with the costs of the shared inference."""
    rows = [
        replace(result, outputs={name: value[i : i + 1] for name, value in result.outputs.items()})
        for result in results
        for i in range(len(next(iter(result.outputs.values()))))
    ]
    return rows[:count]
