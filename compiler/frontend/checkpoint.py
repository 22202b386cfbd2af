"""Folders of weights that somebody else wrote: what they hold is looked at before a library makes a model of them.

A config may describe a model of any size, and libraries make room for all of it before they look for its weights. Here
it is compared with the weights that there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mpcc.compiler.errors import MpccError
from mpcc.compiler.types import printable

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
LARGEST_JSON = 2**26  # bytes of a config or an index
_COUNTS = re.compile(r"layers?$")  # keys whose numbers are at most as many as there are tensors
_SIZES = re.compile(r"num|size|dim|^n_|^d_|^r$|width|position|hidden|label|head|expert|length|rank")
_SMALL = 2**24  # what a size may be in the smallest model, and how much of a model may have no weights in its files


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        MpccError: it cannot be read, is not JSON, or another value.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise MpccError(f"the file is larger than {LARGEST_JSON} bytes", where=str(path))
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise MpccError("the file is not JSON", where=str(path)) from None
    if not isinstance(value, dict):
        raise MpccError("the file does not hold a JSON object", where=str(path))
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; none, if it holds no weights of this form.

    Raises:
        MpccError: its index is none, or names a file elsewhere.
    """
    index = folder / INDEX
    if not index.exists():
        return [folder / SINGLE] if (folder / SINGLE).exists() else []
    table = read_json(index).get("weight_map")
    names: list[str] = []
    for name in table.values() if isinstance(table, dict) else [None]:
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}\.safetensors", name)):
            raise MpccError("the index does not say which files hold the weights", where=str(index))
        names.append(name)
    return [folder / name for name in sorted(set(names))]


def sizes_of(files: list[Path]) -> dict[str, int]:
    """Elements of every tensor.

    Raises:
        MpccError: a file cannot be read, or is none of safetensors.
    """
    sizes: dict[str, int] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (not a mapping)
                    sizes[name] = torch.Size(handle.get_slice(name).get_shape()).numel()
        except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise MpccError(f"the file of weights cannot be read: {shown(error)}", where=str(file)) from None
    return sizes


def check_config(config: Mapping[str, Any], weights: Mapping[str, int], where: str) -> None:
    """Whether no number of a config is one that only a much larger model has.

    Raises:
        MpccError: the first one that is; before a library counts up to it.
    """
    elements = sum(weights.values())
    for key, number in _numbers(config, ""):
        most = len(weights) if _COUNTS.search(key) else max(_SMALL, elements) if _SIZES.search(key) else None
        if "label" in key or key == "r":  # each of them has weights of its own
            most = elements
        if most is not None and number > most:
            raise MpccError(f"{key[:60]} is larger than the weights in the folder allow", where=where)


def check_described(module: torch.nn.Module, weights: Mapping[str, int], where: str) -> None:
    """Whether a model, made without memory for its weights, is about as large as those are. MpccError if not."""
    described, found = sum(p.numel() for p in module.parameters()), sum(weights.values())
    if described > 2 * found + _SMALL:
        raise MpccError(f"the config describes {described} weights, the folder holds {found}", where=where)


def shown(error: BaseException) -> str:
    """The first line of an error's message, as far as it can be shown."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return "".join(c if printable(c) else " " for c in line)


def _numbers(value: object, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield key, value
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from _numbers(entry, str(name))
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry, key)
