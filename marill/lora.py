"""LoRA on the private layers only: W stays public, the two thin matrices are the provider's secret.

In MPC the product with the public W costs no communication in protocols that multiply shares by known numbers, and
the thin ones replace d x d private weights by 2 r d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import plain
from mpcc.marill.families import body_of, family_of, first_trained, layers_of

TARGETS = ("attention", "mlp", "all")
_HEADS = ("classifier", "pre_classifier", "score")
TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}


def add_lora(
    model: nn.Module, rank: int, targets: str | Sequence[str] = "all", alpha: int | None = None, dropout: float = 0.0
) -> nn.Module:
    """A PEFT model with LoRA on linears of the layers that learn, and on the pooler; the head learns as a whole.

    Args:
        model: a Hugging Face model, frozen layers already frozen; its modules are wrapped in place.
        rank: of the adapter.
        targets: "attention", "mlp", "all", or paths of linears within a layer.
        alpha: the scale is alpha / rank; by default 1.
        dropout: on the adapter's input while training.

    Raises:
        MpccError: a bad rank, an unknown target, or no layer that learns.
    """
    from peft import LoraConfig, get_peft_model

    if rank < 1:
        raise MpccError(f"the rank of LoRA is {rank}; it must be at least 1")
    names = target_names(model, targets)
    if not names:
        raise MpccError("LoRA has no layer to adapt: all layers are frozen")
    task = next((t for suffix, t in TASKS.items() if type(plain(model)).__name__.endswith(suffix)), None)
    heads = [name for name in _HEADS if hasattr(model, name)]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=names,
        modules_to_save=heads or None,
        fan_in_fan_out=_is_conv1d(model, names[0]),
        task_type=task,
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


def target_names(model: nn.Module, targets: str | Sequence[str]) -> list[str]:
    """Full names of the linears to adapt, layer by layer."""
    family, layers = family_of(model), layers_of(model)
    known = {"attention": family.attention_linears, "mlp": family.mlp_linears, "all": family.linears}
    paths = known.get(targets) if isinstance(targets, str) else tuple(targets)
    if paths is None or any(path not in family.linears for path in paths):
        raise MpccError(
            f"LoRA cannot adapt {targets!r}", todo=f"choose attention, mlp, all, or from: {', '.join(family.linears)}"
        )
    names = {id(module): name for name, module in model.named_modules()}
    found = [names[id(layer.get_submodule(path))] for layer in layers[first_trained(model) :] for path in paths]
    pooler = getattr(body_of(model), "pooler", None)
    if found and pooler is not None and targets == "all":
        found.append(names[id(pooler.dense)])
    return found


def _is_conv1d(model: Any, name: str) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(model.get_submodule(name), Conv1D)
