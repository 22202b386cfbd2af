"""Drafting with the open checkpoint: the client guesses the next tokens by the public base model, in clear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpcc.compiler.errors import MpccError


class BaseModel:
    """The open base model with a cache of its own: drafts the tokens that it would write itself, greedily."""

    def __init__(self, base: str | Path) -> None:
        """`base` is the folder of a causal language model of transformers.

        Raises:
            MpccError: there is no such model.
        """
        from mpcc.compiler.frontend.sources import load

        module = load(base).module
        if module is None or not hasattr(module, "generate"):
            raise MpccError("the base is no causal language model: it cannot draft", where=str(base))
        self.model: Any = module.eval()
        self.read: list[int] = []  # the tokens that the cache holds
        self.cache: Any = None

    def __call__(self, tokens: Sequence[int], wanted: int) -> list[int]:
        """The next `wanted` tokens after `tokens`."""
        drafted: list[int] = []
        while len(drafted) < wanted:
            drafted.append(self._next([*tokens, *drafted]))
        return drafted

    def _next(self, tokens: list[int]) -> int:
        from transformers import DynamicCache

        same = 0
        while same < min(len(self.read), len(tokens) - 1) and self.read[same] == tokens[same]:
            same += 1
        if self.cache is None:
            self.cache = DynamicCache()
        elif same < len(self.read):
            self.cache.crop(same - len(self.read))
        with torch.no_grad():
            out = self.model(
                input_ids=torch.tensor([tokens[same:]]), past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
        self.read = list(tokens)
        return int(out.logits[0, -1].argmax())
