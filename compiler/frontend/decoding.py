"""A causal language model as two functions: of a prompt, and of a few tokens more against a cache of keys and values.

transformers' own cache is the interface: whatever keeps its keys and values there can be captured. A step returns the
logits of the last positions, and of every layer the keys and values of its own positions, which the cache then holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured, capture

IDS, KEPT, POSITIONS, PLACE, LOGITS = "input_ids", "attention_mask", "position_ids", "place", "logits"
ENTRIES = 2  # the dimension of keys and values [batch, heads, entries, size] that grows


@dataclass(frozen=True)
class StepShape:
    """What a step is given: `tokens` new tokens against `past` entries of the cache, of which `logits` positions, the
    last ones, are answered.
    """

    tokens: int
    past: int
    logits: int


@dataclass(frozen=True)
class Step:
    """A captured step: its graph has an input for each key and value of the past, and returns those of its positions.

    The names of both are the same: the input `key_3` of a step is what steps before it returned.
    """

    captured: Captured
    shape: StepShape


def capture_step(model: nn.Module, shape: StepShape) -> Step:
    """Capture one step of a model of transformers.

    Raises:
        MpccError: the model keeps no cache of keys and values, or cannot be exported.
    """
    layers = cache_shapes(model)
    with _as_step(model, shape, len(layers)):
        given = example_step(layers, shape)
        captured = capture(model, given)
    return Step(captured, shape)


def names_of(layers: int) -> tuple[str, ...]:
    """The names of keys and values of all layers."""
    return tuple(f"{what}_{i}" for i in range(layers) for what in ("key", "value"))


def cache_shapes(model: nn.Module) -> list[tuple[int, int, int, int]]:
    """[batch, heads, 1, size] of what a token adds to the cache, by layer.

    Raises:
        MpccError: the model does not use the cache that it is given.
    """
    cache = _recorder()
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache, use_cache=True)
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise MpccError(f"the model cannot generate: {type(error).__name__}: {reason}", todo=_TODO) from error
    if not cache.added or sorted(cache.added) != list(range(len(cache.added))):
        raise MpccError("the model cannot generate: it keeps no keys and values of every layer", todo=_TODO)
    shapes = [tuple(key.shape) for key, value in cache.added.values() if key.shape == value.shape]
    if len(shapes) != len(cache.added) or any(len(s) != 4 for s in shapes):
        raise MpccError("the model cannot generate: its keys and values differ in shape", todo=_TODO)
    return shapes


def example_step(layers: Sequence[tuple[int, ...]], shape: StepShape) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes, by name."""
    given = {
        IDS: torch.zeros(1, shape.tokens, dtype=torch.int64),
        KEPT: torch.ones(1, shape.past + shape.tokens, dtype=torch.int64),
        POSITIONS: torch.arange(shape.past, shape.past + shape.tokens)[None],
        PLACE: torch.tensor([0]),
    }
    if shape.past:
        sizes = [size for size in layers for _ in range(2)]
        given |= {
            name: torch.zeros(batch, heads, shape.past, width)
            for name, (batch, heads, _, width) in zip(names_of(len(layers)), sizes, strict=True)
        }
    return given


_TODO = "compile a causal language model of transformers that uses past_key_values"


def _recorder() -> Any:
    """An empty cache that remembers what a step adds to it."""
    from transformers import DynamicCache

    class Recorder(DynamicCache):
        """Keys and values of all positions for attention, those of this step in `added`."""

        def __init__(self) -> None:
            super().__init__()
            self.added: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            self.added[layer_idx] = (key_states, value_states)
            both: tuple[torch.Tensor, torch.Tensor] = super().update(
                key_states, value_states, layer_idx, *args, **kwargs
            )
            return both

    return Recorder()


@contextmanager
def _as_step(model: nn.Module, shape: StepShape, layers: int) -> Iterator[None]:
    """For the time of the block, the model's forward is that of a step; it is left as it was found."""
    whole, had = model.forward, "forward" in vars(model)
    caches = names_of(layers)

    def forward(**given: torch.Tensor) -> dict[str, torch.Tensor]:
        cache = _recorder()
        for i in range(layers if shape.past else 0):
            cache.update(given[f"key_{i}"], given[f"value_{i}"], i)
        more = {POSITIONS: given[POSITIONS]} if POSITIONS in accepted else {}
        out = whole(input_ids=given[IDS], attention_mask=given[KEPT], past_key_values=cache, use_cache=True, **more)
        result = {LOGITS: out.logits[:, shape.tokens - shape.logits :]}
        for i in range(layers):
            result[f"key_{i}"], result[f"value_{i}"] = cache.added[i]
        return result

    accepted = inspect.signature(whole).parameters
    names = [IDS, KEPT, POSITIONS, PLACE, *(caches if shape.past else ())]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def step(*args: torch.Tensor, **kwargs: torch.Tensor) -> dict[str, torch.Tensor]:
        return forward(**signature.bind(*args, **kwargs).arguments)

    step.__signature__ = signature  # type: ignore[attr-defined]  # export asks for the names of the arguments
    try:
        model.forward = step
        yield
    finally:
        if had:
            model.forward = whole
        else:
            del model.forward


def entries_of(model: nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """Keys and values [batch, heads, tokens, size] of all layers on token ids, in the order of `names_of`."""
    cache = _recorder()
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    return [tensor for i in range(len(cache.added)) for tensor in cache.added[i]]
