"""A StableHLO program with what everybody has to know of its arguments. No torch: provider and helper read it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Owner = Literal["client", "provider", "public"]


@dataclass(frozen=True)
class Input:
    """An argument of the function, f32 of `shape`.

    `tensor` is the name of the weight, or of the client's shared value. `owner` holds it ("public": everybody does);
    a `secret` one enters as shares that its owner makes. A scalar with a `value` is no tensor: it is what it says.
    """

    tensor: str
    shape: Shape
    owner: Owner
    secret: bool
    value: float | None = None


@dataclass(frozen=True)
class Output:
    """A result, f32 of `shape`."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class StableHlo:
    """The text of the module, its arguments and its results in order; the text holds no name from the model."""

    text: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
