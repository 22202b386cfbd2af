"""Tiny models with random weights."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40}


def tiny(name: str, attention: str = "sdpa", **options: object) -> torch.nn.Module:
    """A model by the name of its class; norms and biases are random too, so that nothing cancels out."""
    torch.manual_seed(3)
    cls = getattr(transformers, name)
    sizes = DISTIL if name.startswith("DistilBert") else SIZES
    config = cls.config_class(**sizes, **options)
    model = cls._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch(length: int, padding: int = 0, rows: int = 2) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 50, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    if padding:
        mask[-1, length - padding :] = 0
        ids[-1, length - padding :] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
