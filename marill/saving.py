"""Model folders that `mpcc compile --base` takes as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.sources import STRUCTURE_FILE, STRUCTURE_KEY, is_peft, plain
from mpcc.compiler.frontend.sources import load as open_source
from mpcc.marill.families import config_of
from mpcc.marill.structure import install, parse

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


def save(model: nn.Module, folder: Path, tokenizer_from: Path | None = None) -> None:
    """Write the model, or only its adapter, with its structure; and the tokenizer of another folder."""
    inner: Any = model
    inner.save_pretrained(folder)
    if is_peft(model):
        config = config_of(model)
        table = {STRUCTURE_KEY: getattr(config, STRUCTURE_KEY, None), "id2label": config.id2label}
        (folder / STRUCTURE_FILE).write_text(json.dumps(table, indent=1) + "\n", "utf-8")
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form
        _sort_targets(folder / "adapter_config.json")
    if tokenizer_from is not None:
        for name in _TOKENIZER_FILES:
            if (tokenizer_from / name).is_file():
                shutil.copyfile(tokenizer_from / name, folder / name)


def _sort_targets(path: Path) -> None:
    """PEFT writes a set in whatever order it has; sorted, equal models have equal files."""
    config = json.loads(path.read_text("utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


def restore(model: nn.Module, folder: Path) -> None:
    """Make a model that was loaded from `folder` compute what the folder says. In place.

    Raises:
        MpccError: the folder's structure is damaged or does not fit the model.
    """
    path = folder / STRUCTURE_FILE
    entry = getattr(config_of(model), STRUCTURE_KEY, None)
    if path.is_file():
        try:
            table = json.loads(path.read_text("utf-8"))
            labels = {int(i): str(name) for i, name in table["id2label"].items()}
            entry = table[STRUCTURE_KEY]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise MpccError("the file is damaged", where=str(path)) from None
        config: Any = plain(model).config
        if len(labels) == config.num_labels:
            config.id2label = labels
            config.label2id = {name: i for i, name in labels.items()}
    if isinstance(entry, Mapping):
        install(model, parse(entry))


def load(folder: str | Path, base: str | Path | None = None) -> nn.Module:
    """A model that `save` wrote; an adapter needs its base.

    Raises:
        MpccError: the folder cannot be opened.
    """
    module = open_source(Path(folder), base=base).module
    if module is None:
        raise MpccError("the folder holds no model", where=str(folder))
    return module
