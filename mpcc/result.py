"""What an inference gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mpcc.compiler.cost import Cost
    from mpcc.runtime.engine import Measured


@dataclass(frozen=True)
class Result:
    """One inference: outputs by name, and what the engine measured (None: the emulator sends nothing)."""

    outputs: dict[str, torch.Tensor]
    engine: str
    seconds: float
    measured: Measured | None
    estimated: Cost
    warnings: tuple[str, ...] = ()
