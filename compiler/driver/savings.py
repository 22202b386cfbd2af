"""What each pass saves: the cost of the program as it is, and compiled again without one pass at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from mpcc.compiler.cost import estimate
from mpcc.compiler.driver.options import SWITCHABLE
from mpcc.compiler.driver.pipeline import Compiled, compile_model
from mpcc.compiler.errors import MpccError
from mpcc.compiler.findings import Saving
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.partition import Partition


def measured_savings(
    model: Captured,
    partition: Partition,
    samples: Sequence[Mapping[str, torch.Tensor]],
    compiled: Compiled,
    stage: Callable[[str], None] = lambda name: None,
) -> tuple[Saving, ...]:
    """One entry for every pass that can be switched off, in the form that was chosen with all of them on."""
    return tuple(_saving(model, partition, samples, compiled, name, stage) for name in SWITCHABLE)


def _saving(
    model: Captured,
    partition: Partition,
    samples: Sequence[Mapping[str, torch.Tensor]],
    compiled: Compiled,
    name: str,
    stage: Callable[[str], None],
) -> Saving:
    stage(f"without {name}")
    options = compiled.options
    try:
        other = compile_model(
            model,
            partition,
            samples,
            replace(options, without=frozenset({name}), print_after=frozenset(), time_passes=False),
            form=compiled.settings,
        )
    except MpccError as error:  # that a program does not compile without a pass is a finding too
        return Saving(name, 0, 0, 0, str(error).splitlines()[0])
    more, own = (estimate(c.ring, options.protocol) for c in (other, compiled))
    return Saving(
        name,
        more.bytes_online - own.bytes_online,
        more.rounds - own.rounds,
        len(other.source.text) - len(compiled.source.text),
    )
