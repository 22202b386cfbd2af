"""Checkpoints of a training that may be killed at any moment: written beside and moved into place, never half there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpcc.compiler.errors import MpccError

SECONDS = 20.0


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints, one file for each stage; `seconds` is the time between two."""

    folder: Path
    seconds: float = SECONDS

    def save(self, stage: str, state: dict[str, Any]) -> None:
        """Replace the stage's checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self._path(stage)
        beside = target.with_suffix(".tmp")
        torch.save(state, beside)
        beside.replace(target)

    def load(self, stage: str) -> dict[str, Any] | None:
        """The stage's checkpoint, or None; only tensors and plain values come out of it.

        Raises:
            MpccError: the file is not a checkpoint.
        """
        path = self._path(stage)
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:
            raise MpccError(
                f"the checkpoint cannot be read: {type(error).__name__}", where=path.name, todo="delete it"
            ) from None
        return state

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.checkpoint"
