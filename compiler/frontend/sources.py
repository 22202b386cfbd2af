"""Where a model can come from: a module, an exported program, or a file or folder of a known kind.

Nothing in here runs code that a model file carries: pickles, compiled libraries and remote code are refused.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.archive import check_stored, load_program
from mpcc.compiler.frontend.checkpoint import check_config, check_described, read_json, shown, sizes_of, weight_files

MODEL_ENTRY, META_ENTRY, TOKENIZER_ENTRY = "model.pt2", "mpcc.json", "tokenizer.json"
FORMAT, VERSION = "mpcc-model", 1
# What `mpcc finetune` changed beside the weights: an entry of the config, or a file beside an adapter, which has none.
STRUCTURE_KEY, STRUCTURE_FILE = "mpcc", "marill.json"
LOADERS = "mpcc.model_loaders"  # entry points: function(module, folder) that finishes a module read from a folder
_TASKS: Mapping[str, str] = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
}


@dataclass(frozen=True)
class Loaded:
    """A model and what came with it; exactly one of `module` and `program` is set."""

    module: nn.Module | None = None
    program: ExportedProgram | None = None
    config: dict[str, Any] | None = None
    tokenizer_json: str | None = None
    architecture: str = ""
    trainable: Mapping[str, bool] | None = None


def load(source: object, *, base: str | Path | None = None, allow_pickle: bool = False) -> Loaded:
    """Open a model.

    Args:
        source: an nn.Module, an ExportedProgram or a path.
        base: folder of the base model, for a PEFT adapter.
        allow_pickle: run the code in a pickled module. Only for files you made yourself.

    Raises:
        MpccError: the source is missing, of no known kind, or not safe to open.
    """
    if isinstance(source, ExportedProgram):
        return Loaded(program=source)
    if isinstance(source, nn.Module):
        return _module(source)
    if not isinstance(source, (str, Path)):
        raise MpccError(f"a model cannot be read from a {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        return _folder(path, base)
    if not path.is_file():
        raise MpccError("no such model file", where=str(path))
    return _file(path, allow_pickle)


def _module(module: nn.Module) -> Loaded:
    config = getattr(module, "config", None)
    as_json = getattr(config, "to_json_string", None)
    if as_json is None:
        return Loaded(module=module, architecture=type(plain(module)).__name__)
    return Loaded(module, None, json.loads(as_json(use_diff=False)), None, type(plain(module)).__name__)


def plain(module: nn.Module) -> nn.Module:
    """The model inside PEFT's wrapper."""
    inner = getattr(module, "get_base_model", None)
    result = inner() if callable(inner) else module
    return result if isinstance(result, nn.Module) else module


def is_peft(module: nn.Module) -> bool:
    from peft import PeftModel

    return isinstance(module, PeftModel)


# Folders


def _folder(path: Path, base: str | Path | None) -> Loaded:
    tokenizer = path / "tokenizer.json"
    text = tokenizer.read_text("utf-8") if tokenizer.is_file() else None
    if (path / "adapter_config.json").is_file():
        loaded = _adapter(path, base)
        return replace(loaded, tokenizer_json=text or loaded.tokenizer_json)
    if not (path / "config.json").is_file():
        raise MpccError("the folder has neither config.json nor adapter_config.json", where=str(path))
    module = _pretrained(path, _class_of(path))
    _restore(module, path)
    return replace(_module(module), tokenizer_json=text)


def _class_of(path: Path) -> Any:
    """The model class that `architectures` in config.json names; only classes of transformers itself."""
    import transformers

    names = read_json(path / "config.json").get("architectures") or []
    if not names:
        return transformers.AutoModel
    name = str(names[0])[:100] if isinstance(names, list) else ""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise MpccError(f"transformers has no model class {name!r}", where=str(path / "config.json"))
    return found


def _pretrained(path: Path, cls: Any, **options: Any) -> nn.Module:
    if not any(path.glob("*.safetensors")):
        raise MpccError(
            "the folder has no safetensors file; weights in pickles (.bin, .pt) are not opened",
            where=str(path),
            todo="save it again with model.save_pretrained(folder)",
        )
    weights = sizes_of(weight_files(path))
    check_config(read_json(path / "config.json"), weights, str(path))
    with _offline(), _foreign("transformers cannot load the model", path):
        check_described(_described(path, cls, options), weights, str(path))
        module = cls.from_pretrained(str(path), local_files_only=True, use_safetensors=True, **options)
    if not isinstance(module, nn.Module):
        raise MpccError("transformers did not return a module", where=str(path))
    return module


def _described(path: Path, cls: Any, options: Mapping[str, Any]) -> nn.Module:
    """The model that a config describes, without memory for its weights."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True, **options)
    with torch.device("meta"):
        made = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
    assert isinstance(made, nn.Module)
    return made


@contextlib.contextmanager
def _foreign(what: str, path: Path) -> Iterator[None]:
    """Whatever a library makes of a file that somebody else wrote is one error of ours."""
    try:
        yield
    except MpccError:
        raise
    except Exception as error:
        raise MpccError(f"{what}: {shown(error)}", where=str(path)) from error


def _adapter(path: Path, base: str | Path | None) -> Loaded:
    import transformers
    from peft import PeftModel

    if base is None:
        raise MpccError("a PEFT adapter needs its base model", where=str(path), todo="give it with base=FOLDER")
    weights = path / "adapter_model.safetensors"
    if not weights.is_file():
        raise MpccError("the adapter has no adapter_model.safetensors; pickles are not opened", where=str(path))
    settings = read_json(path / "adapter_config.json")
    check_config(settings, sizes_of([weights]), str(path))
    task = _TASKS.get(str(settings.get("task_type")))
    folder = Path(base)
    if not (folder / "config.json").is_file():
        raise MpccError("the base folder has no config.json", where=str(folder))
    cls = getattr(transformers, task) if task else _class_of(folder)
    labels = _labels(weights) if task and "Classification" in task else None
    options = {} if labels is None else {"num_labels": labels}
    inner = _pretrained(folder, cls, **options)
    with _offline(), _foreign("PEFT cannot load the adapter", path):
        module = PeftModel.from_pretrained(inner, str(path), local_files_only=True)
    _restore(module, path)
    tokenizer = folder / "tokenizer.json"
    text = tokenizer.read_text("utf-8") if tokenizer.is_file() else None
    return replace(_module(module), tokenizer_json=text)


def _restore(module: nn.Module, folder: Path) -> None:
    """Let whoever changes what a model computes beside its weights say what is meant by the folder.

    Raises:
        MpccError: the folder says that something is changed, and nobody here reads it.
    """
    loaders = entry_points(group=LOADERS)
    for loader in loaders:
        loader.load()(module, folder)
    changed = getattr(getattr(plain(module), "config", None), STRUCTURE_KEY, None) is not None
    if not loaders and (changed or (folder / STRUCTURE_FILE).is_file()):
        raise MpccError(
            "the model computes more than its weights say, and no loader for that is installed",
            where=str(folder),
            todo="install mpcc anew",
        )


def _labels(weights: Path) -> int | None:
    """The number of labels of the classifier an adapter brings, from its shape."""
    from safetensors import safe_open

    with safe_open(str(weights), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            if name.endswith(("classifier.weight", "score.weight", "classifier.out_proj.weight")):
                return int(file.get_slice(name).get_shape()[0])
    return None


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _offline() -> contextlib.AbstractContextManager[None]:
    return _environment(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")


# Files


def _file(path: Path, allow_pickle: bool) -> Loaded:
    """As `_opened`; a damaged archive is a mistake of the user."""
    try:
        return _opened(path, allow_pickle)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RecursionError, ValueError) as error:
        raise MpccError(f"the model file is damaged: {shown(error)}", where=str(path)) from None


def _opened(path: Path, allow_pickle: bool) -> Loaded:
    """Tell the kind by what is inside, never by the suffix."""
    if not zipfile.is_zipfile(path):
        return _pickled(path, allow_pickle)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if META_ENTRY in names and MODEL_ENTRY in names:
            check_stored(archive, path.stat().st_size)
            return _saved(archive, path)
    inside = {n.partition("/")[2] or n for n in names}
    if any(n.startswith("models/") or n == "archive_format" for n in inside):
        return _exported(path.read_bytes(), path)
    return _pickled(path, allow_pickle)


def _pickled(path: Path, allow_pickle: bool) -> Loaded:
    if not allow_pickle:
        raise MpccError(
            "the file is a pickle (or of no known kind); opening a pickle runs code that is inside it",
            where=str(path),
            todo="save the model with mpcc.save or torch.export.save, or allow pickles if you made the file yourself",
        )
    try:
        value = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise MpccError(f"PyTorch cannot read the file: {shown(error)}", where=str(path)) from error
    if not isinstance(value, nn.Module):
        raise MpccError("the file holds no module, perhaps only a state dict", where=str(path))
    return _module(value)


def _exported(data: bytes, path: Path) -> Loaded:
    import transformers.modeling_outputs  # noqa: F401 (registers the output types that a program may refer to)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unsafe = [n for n in archive.namelist() if "/aotinductor/" in n or n.endswith((".so", ".cubin", ".cpp"))]
    if unsafe:
        raise MpccError("the exported program carries compiled code", where=str(path), todo="save the plain export")
    # torch.export.save pickles tensors of unusual kinds; with this set, nothing but tensors can come out of a pickle.
    with _environment(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
        try:
            return Loaded(program=load_program(data))
        except MpccError as error:
            raise MpccError(error.what, where=str(path), todo=error.todo) from None
        except Exception as error:
            raise MpccError(f"PyTorch cannot load the exported program: {shown(error)}", where=str(path)) from error


def _saved(archive: zipfile.ZipFile, path: Path) -> Loaded:
    try:
        meta = json.loads(archive.read(META_ENTRY))
    except ValueError as error:
        raise MpccError("the file's metadata is not JSON", where=str(path)) from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise MpccError("the file is not one that mpcc.save wrote", where=str(path))
    if meta.get("version") != VERSION:
        raise MpccError(f"the file has version {meta.get('version')!r}, this mpcc reads {VERSION}", where=str(path))
    loaded = _exported(archive.read(MODEL_ENTRY), path)
    text = archive.read(TOKENIZER_ENTRY).decode("utf-8") if TOKENIZER_ENTRY in archive.namelist() else None
    trainable = meta.get("trainable")
    return replace(
        loaded,
        config=meta.get("config"),
        tokenizer_json=text,
        architecture=str(meta.get("architecture", "")),
        trainable={str(k): bool(v) for k, v in trainable.items()} if isinstance(trainable, dict) else None,
    )


def forward_names(module: nn.Module) -> list[str]:
    """The names of the arguments of the (unwrapped) model's forward, without *args and **kwargs."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(plain(module).forward).parameters
    return [name for name, p in parameters.items() if p.kind not in variable]
