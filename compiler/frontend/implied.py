"""Which tensors that are no parameters the architecture implies, so that everybody may know them.

A constant, a plain attribute of a module or a buffer may hold anything: a quantised weight, a secret table, a
temperature. It is implied, and public, only where its content shows that nobody put anything into it (`structural`), or
where a model that is built anew from the same config, twice and with different seeds, has the same bits (`Rebuilt`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mpcc.compiler.frontend.names import unwrapped

_FIRST = (0, 1, 2)  # where positions begin: at 0, or after the places of special tokens
_MOST_LAYERS, _LARGEST_SIZE = 1000, 10**7  # in a config: whoever asks for more is not built anew
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def implied(store: Mapping[str, torch.Tensor], kinds: Mapping[str, str], rebuilt: Rebuilt | None) -> dict[str, str]:
    """The reason of every tensor that the architecture implies; what is not in the result is private.

    Args:
        store: the tensors that the model holds, by name.
        kinds: "parameter", "buffer", "non_persistent_buffer" or "literal" (a constant or plain attribute) by name.
        rebuilt: the model built anew, where its class and config are known.
    """
    reasons: dict[str, str] = {}
    for name, tensor in store.items():
        kind = kinds[name]
        if kind == "parameter":
            continue
        reason = structural(tensor) if kind != "buffer" else ""
        if not reason and rebuilt is not None and rebuilt.has(name, tensor):
            reason = f"the same in a new {rebuilt.architecture} of this config"
        if reason:
            reasons[name] = reason
    return reasons


def structural(tensor: torch.Tensor) -> str:
    """Why the content of a tensor can hold nothing that was learned, or the empty string.

    Positions (whole numbers that count from 0, 1 or 2), a triangular mask, or one neutral number everywhere: 0, 1, -1,
    or the end of a number type, which stands for infinity in masks. Another number, even a single one, may be a secret.
    """
    flat = tensor.detach().reshape(-1)
    if flat.numel() == 0:
        return "it is empty"
    if bool((flat == flat[0]).all()):
        return "one repeated neutral number" if _neutral(flat[0]) else ""
    if tensor.dtype == torch.bool or not tensor.is_floating_point():
        if _triangle(tensor):
            return "a triangular mask"
        if tensor.dtype != torch.bool and int(flat[0]) in _FIRST:
            counting = torch.arange(flat.numel(), dtype=torch.int64) + int(flat[0])
            return "positions, counted" if torch.equal(flat.to(torch.int64), counting) else ""
    return ""


def _neutral(number: torch.Tensor) -> bool:
    value = number.item()
    if number.dtype.is_complex:
        return False
    if not number.is_floating_point():
        return value in (0, 1, -1)
    limits = [torch.finfo(d) for d in _FLOATS]
    return value in (0.0, 1.0, -1.0, float("inf"), float("-inf")) or value in [
        x for f in limits for x in (f.min, f.max)
    ]


def _triangle(tensor: torch.Tensor) -> bool:
    """Ones on one side of a diagonal of a square, zeros on the other."""
    if tensor.dim() < 2 or tensor.shape[-1] != tensor.shape[-2] or tensor.numel() != tensor.shape[-1] ** 2:
        return False
    square = tensor.detach().reshape(tensor.shape[-2:]).to(torch.int64)
    ones = torch.ones_like(square)
    shapes = [cut(ones, d) for cut in (torch.tril, torch.triu) for d in (-1, 0, 1)]
    return any(torch.equal(square, shape) for shape in shapes)


@dataclass(frozen=True)
class Rebuilt:
    """A model class of transformers and a config, and what a model made of them holds besides parameters."""

    cls: Any
    config: Any
    elements: int  # of the model that is to be built anew: nothing much larger is

    @property
    def architecture(self) -> str:
        return str(self.cls.__name__)

    def has(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a new model has this tensor, bit by bit."""
        found = self._held.get(unwrapped(name))
        return found is not None and _same_bits(found.to(tensor.dtype), tensor)

    @cached_property
    def _held(self) -> dict[str, torch.Tensor]:
        """What two models with different seeds have in common."""
        try:
            with torch.device("meta"):
                if sum(p.numel() for p in self.cls(self.config).parameters()) > 2 * self.elements + 10**6:
                    return {}
            first, second = (self._built(seed) for seed in (1, 2))
        except Exception:  # whatever stands in a constructor: then nothing is implied
            return {}
        return {n: t for n, t in first.items() if n in second and _same_bits(t, second[n])}

    def _built(self, seed: int) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return dict(_held_by(self.cls(copy.deepcopy(self.config))))


def rebuilt_from(module: nn.Module | None, architecture: str, config: Mapping[str, Any] | None) -> Rebuilt | None:
    """How to build a model anew, of classes of transformers only: another class may read a secret when it is made.

    Args:
        module: the model, unwrapped, or None where it came as an exported program.
        architecture: the name of its class.
        config: its config as JSON, or None.
    """
    import transformers

    if not config or not _is_modest(config):
        return None
    cls = getattr(transformers, architecture, None) if architecture.isidentifier() else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)) or cls.config_class is None:
        return None
    if module is not None:
        if type(module) is not cls:
            return None
        return Rebuilt(cls, copy.deepcopy(module.config), sum(p.numel() for p in module.parameters()))
    try:
        return Rebuilt(cls, cls.config_class.from_dict(dict(config)), 10**8)
    except Exception:  # a config of a file may hold anything
        return None


def _is_modest(config: Mapping[str, Any]) -> bool:
    """Whether a model of this config can be built in reasonable time: a config may come from anybody."""
    numbers = {k: v for k, v in config.items() if isinstance(v, int)}
    return all(abs(v) <= _LARGEST_SIZE and ("layer" not in k or v <= _MOST_LAYERS) for k, v in numbers.items())


def _held_by(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Buffers and tensors that are plain attributes, by name."""
    yield from model.named_buffers(remove_duplicate=False)
    for path, part in model.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                yield (f"{path}.{key}" if path else key), value


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    raw = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(raw[0], raw[1])
