"""Choosing tokens: greedy or at a temperature, and how many drafted tokens the model itself would have chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Draft = Callable[[Sequence[int], int], Sequence[int]]


def no_draft(tokens: Sequence[int], wanted: int) -> Sequence[int]:
    """Drafts nothing: every secure step gives one token."""
    return ()


@dataclass
class Sampler:
    """Chooses a token of logits [vocabulary]: the first of the largest at temperature 0, else one drawn of their
    softmax at the temperature, with a generator of its own.
    """

    temperature: float = 0.0
    seed: int = 0
    _generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        self._generator.manual_seed(self.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token."""
        return int(logits.argmax()) if self.temperature == 0.0 else self._drawn(self.probabilities(logits))

    def verify(self, logits: torch.Tensor, guess: int) -> int:
        """The next token, where `guess` was drafted: distributed as `choose`, and the guess as often as can be.

        Speculative sampling (Leviathan et al. 2023, algorithm 1) with a draft that puts all on one token: the guess is
        accepted with its own probability, else another token is drawn of what is left.
        """
        if self.temperature == 0.0:
            return self.choose(logits)
        probabilities = self.probabilities(logits)
        if float(torch.rand((), generator=self._generator, dtype=torch.float64)) < float(probabilities[guess]):
            return guess
        rest = probabilities.clone()
        rest[guess] = 0.0
        return self._drawn(rest)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax at the temperature, in float64."""
        return torch.softmax(logits.double() / self.temperature, -1)

    def _drawn(self, weights: torch.Tensor) -> int:
        return int(torch.multinomial(weights, 1, generator=self._generator))


def accepted(logits: torch.Tensor, guesses: Sequence[int], sampler: Sampler) -> list[int]:
    """The tokens that a step gives: guesses as far as they hold, then the first that differs, or one more.

    Args:
        logits: [1 + guesses at least, vocabulary]; row i is what comes after the guesses before i.
        guesses: drafted tokens.
    """
    chosen: list[int] = []
    for row, guess in zip(logits, guesses, strict=False):
        chosen.append(sampler.verify(row, guess))
        if chosen[-1] != guess:
            return chosen
    return [*chosen, sampler.choose(logits[len(guesses)])]
