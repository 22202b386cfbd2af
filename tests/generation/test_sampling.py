"""How tokens are chosen, and how many drafted ones a step may keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpcc.sampling import Sampler, accepted

LOGITS = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    "guesses, kept",
    [([], [1]), ([1], [1, 0]), ([0], [1]), ([1, 0], [1, 0, 2]), ([1, 2], [1, 0]), ([2, 0], [1])],
)
def test_greedy_keeps_what_the_model_would_have_chosen(guesses, kept):
    assert accepted(LOGITS, guesses, Sampler()) == kept


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("guess", [0, 1, 2])
def test_sampling_with_a_draft_has_the_distribution_of_sampling_alone(temperature, guess):
    sampler = Sampler(temperature, seed=7)
    drawn = np.bincount([sampler.verify(LOGITS[0], guess) for _ in range(4000)], minlength=3) / 4000
    want = torch.softmax(LOGITS[0].double() / temperature, 0).numpy()
    assert np.abs(drawn - want).max() < 4 * np.sqrt(0.25 / 4000)


def test_a_draft_that_is_certain_is_always_kept():
    sampler = Sampler(0.01)
    assert all(sampler.verify(LOGITS[0], 1) == 1 for _ in range(50))


def test_equal_seeds_draw_equal_tokens():
    first, second = ([Sampler(1.0, seed).choose(LOGITS[1]) for _ in range(1)] for seed in (3, 3))
    many = [Sampler(1.0, seed).choose(LOGITS[1]) for seed in range(30)]
    assert first == second and set(many) >= {0, 2}
