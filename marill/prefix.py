"""The frozen prefix is evaluated once for each text; training then starts from its cached outputs.

`cache_prefix` stops a forward pass where the first trained layer begins. `trained_part` makes the model start from
there: its embeddings give the cached hidden states and the frozen layers are left out, so that everything else of the
model (masks, rotary embeddings, pooler, head) stays transformers' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mpcc.marill.families import body_of, config_of, family_of, layers_of

CACHE_BATCH = 64
Forward = Callable[["Batch"], Tensor]


@dataclass(frozen=True)
class Example:
    """One text: token ids [S], its class (-1 for language modelling), and hidden states [S, width] once cached."""

    ids: Tensor
    label: int = -1
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Padded examples: ids and mask [B, S], hidden states [B, S, width], labels [B]."""

    ids: Tensor
    mask: Tensor
    hidden: Tensor
    labels: Tensor


def padded(examples: Sequence[Example], pad: int) -> Batch:
    """Examples with cached hidden states as one batch, padded on the right."""
    hidden = pad_sequence([e.hidden for e in examples if e.hidden is not None], batch_first=True)
    ids, mask = padded_ids(examples, pad)
    return Batch(ids, mask, hidden, torch.tensor([e.label for e in examples]))


def padded_ids(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor]:
    """(ids, attention mask), both [B, S], padded on the right."""
    lengths = torch.tensor([len(e.ids) for e in examples])
    ids = pad_sequence([e.ids for e in examples], batch_first=True, padding_value=pad)
    return ids, (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()


def pad_id(model: nn.Module) -> int:
    """The id that fills up short texts; 0 where the model names none."""
    found = getattr(config_of(model), "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else 0


class _Reached(Exception):
    """The forward pass has come to the first trained layer."""


@torch.no_grad()
def cache_prefix(
    model: nn.Module,
    frozen: int,
    examples: Sequence[Example],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Example]:
    """The examples with the hidden states that enter layer `frozen`; texts of similar length go together."""
    training = model.training
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    found: dict[int, Example] = {}
    for start in range(0, len(order), CACHE_BATCH):
        chosen = [examples[i] for i in order[start : start + CACHE_BATCH]]
        hidden = _hidden_before(model, frozen, *padded_ids(chosen, pad_id(model)))
        for i, row in zip(order[start : start + CACHE_BATCH], hidden, strict=True):
            ids = examples[i].ids
            found[i] = Example(ids, examples[i].label, row[: len(ids)].clone())
        progress(len(found), len(order))
    model.train(training)
    return [found[i] for i in range(len(examples))]


def _hidden_before(model: nn.Module, frozen: int, ids: Tensor, mask: Tensor) -> Tensor:
    caught: list[Tensor] = []
    layers = layers_of(model)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    def after(module: nn.Module, args: object, output: Any) -> None:
        caught.append(tensor_of(output))
        raise _Reached

    if frozen < len(layers):
        handle = layers[frozen].register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = layers[-1].register_forward_hook(after)
    try:
        model(input_ids=ids, attention_mask=mask)
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0]


def tensor_of(output: Any) -> Tensor:
    """The hidden state in what a module returns."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


class _Given(nn.Module):
    """Returns what was put into `value`, whatever it is called with."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.value


@contextmanager
def trained_part(model: nn.Module, frozen: int) -> Iterator[Forward]:
    """A function from a batch with cached hidden states to logits; the model is put together again afterwards."""
    body, family = body_of(model), family_of(model)
    entry = _Given(torch.zeros(()))
    stand_ins: dict[str, nn.Module] = {name: _Given(torch.zeros(())) for name in family.silent}
    stand_ins |= {name: nn.Identity() for name in family.bypassed}
    stand_ins |= {family.entry: entry, family.layers: nn.ModuleList(layers_of(model)[frozen:])}
    originals = {name: body.get_submodule(name) for name in stand_ins}

    def forward(batch: Batch) -> Tensor:
        entry.value = batch.hidden
        logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask).logits
        return logits

    for name, module in stand_ins.items():
        _put(body, name, module)
    try:
        yield forward
    finally:
        for name, module in originals.items():
            _put(body, name, module)


def _put(body: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(body.get_submodule(parent), name, module)
