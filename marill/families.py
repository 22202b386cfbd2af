"""Where the layers, the attention and the feed-forward part are in each family of Hugging Face models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import plain


@dataclass(frozen=True)
class Family:
    """Paths of modules: `layers` and `embeddings` within the body, all others within a layer.

    `entry` is the module whose output enters the first layer once the modules `silent` give zero and those in
    `bypassed` are left out. `attention` splits queries, keys and values into heads, `attention_output` joins them.
    """

    layers: str
    embeddings: tuple[str, ...]
    entry: str
    silent: tuple[str, ...]
    attention: str
    attention_output: str
    attention_linears: tuple[str, ...]
    mlp_linears: tuple[str, ...]
    activation: str
    bypassed: tuple[str, ...] = ()

    @property
    def linears(self) -> tuple[str, ...]:
        return (*self.attention_linears, *self.mlp_linears)


_BERT = Family(
    layers="encoder.layer",
    embeddings=("embeddings",),
    entry="embeddings",
    silent=(),
    attention="attention.self",
    attention_output="attention.output.dense",
    attention_linears=(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    mlp_linears=("intermediate.dense", "output.dense"),
    activation="intermediate.intermediate_act_fn",
)
_DISTILBERT = Family(
    layers="transformer.layer",
    embeddings=("embeddings",),
    entry="embeddings",
    silent=(),
    attention="attention",
    attention_output="attention.out_lin",
    attention_linears=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    mlp_linears=("ffn.lin1", "ffn.lin2"),
    activation="ffn.activation",
)
_GPT2 = Family(
    layers="h",
    embeddings=("wte", "wpe"),
    entry="wte",
    silent=("wpe",),
    attention="attn",
    attention_output="attn.c_proj",
    attention_linears=("attn.c_attn", "attn.c_proj"),
    mlp_linears=("mlp.c_fc", "mlp.c_proj"),
    activation="mlp.act",
    bypassed=("drop",),
)
_LLAMA = Family(
    layers="layers",
    embeddings=("embed_tokens",),
    entry="embed_tokens",
    silent=(),
    attention="self_attn",
    attention_output="self_attn.o_proj",
    attention_linears=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    mlp_linears=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    activation="mlp.act_fn",
)
FAMILIES = {"bert": _BERT, "roberta": _BERT, "distilbert": _DISTILBERT, "gpt2": _GPT2, "llama": _LLAMA}


def family_of(model: nn.Module) -> Family:
    """The family of a Hugging Face model, PEFT-wrapped or not.

    Raises:
        MpccError: another kind of model.
    """
    name = getattr(config_of(model), "model_type", None)
    if name not in FAMILIES:
        raise MpccError(
            f"fine-tuning does not know models of the kind {name or type(plain(model)).__name__!r}",
            todo=f"known kinds: {', '.join(FAMILIES)}",
        )
    return FAMILIES[name]


def config_of(model: nn.Module) -> Any:
    """The Hugging Face config, or None."""
    return getattr(plain(model), "config", None)


def body_of(model: nn.Module) -> nn.Module:
    """The model without its head."""
    inner: Any = plain(model)
    body: nn.Module = inner.base_model
    return body


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers in order."""
    found = body_of(model).get_submodule(family_of(model).layers)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def attention_of(model: nn.Module, layer: int) -> nn.Module:
    """The module of a layer that splits queries, keys and values into heads."""
    return layers_of(model)[layer].get_submodule(family_of(model).attention)


def heads_of(model: nn.Module) -> tuple[int, int]:
    """(attention heads, key-value heads) of every layer, before any merging."""
    config = config_of(model)
    heads = int(config.num_attention_heads)
    return heads, int(getattr(config, "num_key_value_heads", None) or heads)


def first_trained(model: nn.Module) -> int:
    """The number of layers before the first one with a parameter that learns; all layers if none does."""
    layers = layers_of(model)
    for i, layer in enumerate(layers):
        if any(p.requires_grad for p in layer.parameters()):
            return i
    return len(layers)
