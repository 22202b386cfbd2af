"""What was changed in a model's computation beside its weights, kept in the config so that it survives saving.

`config.json` gets one more entry, here for two private layers of four heads merged in pairs:

    "mpcc": {"version": 1, "layers": {"4": {"groups": [[0, 2], [1, 3]], "gelu": "quad", "softmax": "2quad"}, ...}}

The model stays an unmodified class of transformers; `install` makes it compute what the entry says. Whoever opens the
folder with transformers alone gets the unchanged computation: open it with `mpcc.marill.load`, as the compiler does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import STRUCTURE_KEY, plain
from mpcc.marill.activations import QuadGelu, is_gelu
from mpcc.marill.attention import IMPLEMENTATION, SOFTMAX_FORMS, Choice, register
from mpcc.marill.families import attention_of, config_of, family_of, heads_of, layers_of

VERSION = 1
GELU_FORMS = ("quad",)


@dataclass(frozen=True)
class LayerStructure:
    """The changes of one layer; `groups` lists for each merged head the key-value heads in it."""

    groups: tuple[tuple[int, ...], ...] = ()
    gelu: str = ""
    softmax: str = ""


Structure = Mapping[int, LayerStructure]


def structure_of(model: nn.Module) -> dict[int, LayerStructure]:
    """The changes by layer, from the config.

    Raises:
        MpccError: the entry is not one that this version wrote.
    """
    return parse(getattr(config_of(model), STRUCTURE_KEY, None))


def parse(entry: object) -> dict[int, LayerStructure]:
    """The entry of a config as a structure; strict."""
    if entry is None:
        return {}
    if not isinstance(entry, Mapping) or entry.get("version") != VERSION or set(entry) != {"version", "layers"}:
        raise MpccError(f"the entry {STRUCTURE_KEY!r} of the model's config is not one that this mpcc reads")
    try:
        return {int(layer): _layer(changes) for layer, changes in entry["layers"].items()}
    except (TypeError, ValueError, AttributeError, KeyError):
        raise MpccError(f"the entry {STRUCTURE_KEY!r} of the model's config is damaged") from None


def _layer(changes: Mapping[str, Any]) -> LayerStructure:
    found = LayerStructure(
        tuple(tuple(int(head) for head in group) for group in changes.get("groups", ())),
        str(changes.get("gelu", "")),
        str(changes.get("softmax", "")),
    )
    if set(changes) - {"groups", "gelu", "softmax"} or found.gelu not in ("", *GELU_FORMS):
        raise ValueError
    if found.softmax not in ("", *SOFTMAX_FORMS):
        raise ValueError
    return found


def to_entry(structure: Structure) -> dict[str, Any]:
    """A structure as the entry of a config."""
    layers: dict[str, Any] = {}
    for layer, changes in sorted(structure.items()):
        entry: dict[str, Any] = {"groups": [list(group) for group in changes.groups]} if changes.groups else {}
        entry |= {key: value for key, value in (("gelu", changes.gelu), ("softmax", changes.softmax)) if value}
        if entry:
            layers[str(layer)] = entry
    return {"version": VERSION, "layers": layers}


def change(model: nn.Module, layer: int, **changes: Any) -> None:
    """Set fields of one layer's structure, in the config and in the computation."""
    structure = structure_of(model)
    structure[layer] = replace(structure.get(layer, LayerStructure()), **changes)
    install(model, structure)


def install(model: nn.Module, structure: Structure) -> None:
    """Make the model compute what `structure` says, and write it into the config. In place.

    Raises:
        MpccError: the structure does not fit the model.
    """
    count, (_, key_heads) = len(layers_of(model)), heads_of(model)
    for layer, changes in structure.items():
        if not 0 <= layer < count:
            raise MpccError(f"the model has no layer {layer}: it has {count}")
        if changes.groups and sorted(h for g in changes.groups for h in g) != list(range(key_heads)):
            raise MpccError(f"the groups of layer {layer} do not hold each of its {key_heads} heads once")
        _install_layer(model, layer, changes)
    if not structure:
        return
    setattr(config_of(model), STRUCTURE_KEY, to_entry(structure))
    register()
    inner: Any = plain(model)
    inner.set_attn_implementation(IMPLEMENTATION)


def _install_layer(model: nn.Module, layer: int, changes: LayerStructure) -> None:
    heads, key_heads = heads_of(model)
    attention = attention_of(model, layer)
    attention.mpcc_choice = Choice(changes.groups, heads // key_heads, changes.softmax)  # type: ignore[assignment]
    if changes.gelu:
        parent, _, name = family_of(model).activation.rpartition(".")
        owner = layers_of(model)[layer].get_submodule(parent)
        if not isinstance(getattr(owner, name), QuadGelu):
            if not is_gelu(getattr(owner, name)):
                raise MpccError(
                    f"gelu={changes.gelu} stands in for GELU, but layer {layer} has "
                    f"{type(getattr(owner, name)).__name__}"
                )
            setattr(owner, name, QuadGelu())
