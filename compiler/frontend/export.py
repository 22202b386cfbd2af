"""Export of a model with fixed shapes, and the file that carries an export elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn
from torch.export import ExportedProgram

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.peft import peft_json, peft_structure
from mpcc.compiler.frontend.sources import (
    FORMAT,
    META_ENTRY,
    MODEL_ENTRY,
    TOKENIZER_ENTRY,
    VERSION,
    Loaded,
    forward_names,
    load,
)

Inputs = Union[Mapping[str, torch.Tensor], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class TextShape:
    """How to make example inputs for a text model where none are given; without a length none can be made."""

    sequence_length: int | None = None
    batch_size: int = 1
    token_type_ids: bool = False


def exported(loaded: Loaded, example_inputs: Inputs | None, shape: TextShape) -> ExportedProgram:
    """The opened model as an exported program with fixed sizes.

    Raises:
        MpccError: the shapes are not known, do not fit the model, or PyTorch cannot export it.
    """
    if loaded.program is not None:
        return _specialised(loaded.program, example_inputs)
    if loaded.module is None:
        raise MpccError("there is no model to capture")
    names = forward_names(loaded.module)
    args, kwargs = _examples(example_inputs, names, shape)
    return _export(loaded.module, args, kwargs)


def _examples(
    given: Inputs | None, names: Sequence[str], shape: TextShape
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Positional and named example inputs, each tensor its own: export takes equal tensors for one input."""
    if isinstance(given, Mapping):
        unknown = [n for n in given if n not in names]
        if unknown and names:
            raise MpccError(f"the model takes no input {', '.join(unknown)}", todo=f"it takes {', '.join(names)}")
        return (), {k: _example(k, v) for k, v in given.items()}
    if given is not None:
        tensors = (given,) if isinstance(given, torch.Tensor) else tuple(given)
        return tuple(_example(str(i), v) for i, v in enumerate(tensors)), {}
    batch, length = shape.batch_size, shape.sequence_length
    if length is None:
        raise MpccError("the shapes of the inputs are not known", todo="give example_inputs or sequence_length")
    if "input_ids" not in names:
        raise MpccError("example inputs can be made for text models only", todo="give example_inputs")
    made = {"input_ids": torch.zeros(batch, length, dtype=torch.int64)}
    if "attention_mask" in names:
        made["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    if shape.token_type_ids:
        made["token_type_ids"] = torch.zeros(batch, length, dtype=torch.int64)
    return (), made


def _example(name: str, value: object) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise MpccError(f"example input {name} is a {type(value).__name__}, not a tensor")
    return value.detach().clone()


@contextlib.contextmanager
def _prepared(module: nn.Module) -> Iterator[None]:
    """Eval mode and no cache; the module is left as it was found."""
    if isinstance(module, torch.fx.GraphModule):  # the module of an exported program: its mode is fixed
        yield
        return
    training = {m: m.training for m in module.modules()}
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    changes = {"use_cache": False, "output_hidden_states": False, "output_attentions": False, "return_dict": True}
    before = [(c, k, getattr(c, k)) for c in configs.values() for k in changes if getattr(c, k, None) is not None]
    module.eval()
    try:
        for config, key, _ in before:
            with contextlib.suppress(AttributeError, ValueError, TypeError):
                setattr(config, key, changes[key])
        yield
    finally:
        for config, key, value in before:
            with contextlib.suppress(AttributeError, ValueError, TypeError):
                setattr(config, key, value)
        for part, mode in training.items():
            part.training = mode


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    with _prepared(module), torch.no_grad():
        try:
            return torch.export.export(module, args, kwargs, strict=False)
        except MpccError:
            raise
        except Exception as error:
            raise MpccError(f"PyTorch cannot export the model: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line of an export error, with the remedy where it is known."""
    text = " ".join(str(error).split())
    if "Cache" in text:
        return "it returns a cache of keys and values; set use_cache=False in its config"
    if "Could not guard on data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return "its control flow depends on the values of tensors, which a fixed program cannot follow"
    return f"{type(error).__name__}: {text[:300]}"


def _specialised(program: ExportedProgram, example_inputs: Inputs | None) -> ExportedProgram:
    """A program with open sizes is exported again with the sizes of the example inputs, or of its own."""
    if not program.range_constraints and not _open(program):
        _check_shapes(program, example_inputs)
        return program
    if example_inputs is None:
        if program.example_inputs is None:
            raise MpccError("the exported program has open sizes", todo="give example_inputs of the wanted shape")
        args, kwargs = program.example_inputs
    else:
        args, kwargs = _examples(example_inputs, [], TextShape())
    return _export(program.module(), tuple(args), dict(kwargs))


def _open(program: ExportedProgram) -> bool:
    values = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"]
    return any(isinstance(n, torch.SymInt) for v in values if isinstance(v, torch.Tensor) for n in v.shape)


def _check_shapes(program: ExportedProgram, example_inputs: Inputs | None) -> None:
    if not isinstance(example_inputs, Mapping):
        return
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names and node.name in example_inputs:
            fixed, given = tuple(node.meta["val"].shape), tuple(example_inputs[node.name].shape)
            if fixed != given:
                raise MpccError(
                    f"the program was exported for {node.name} of shape {fixed}, not {given}",
                    todo="export it again with the wanted shape",
                )
    unknown = sorted(set(example_inputs) - {str(n) for n in names})
    if unknown:
        raise MpccError(f"the exported program takes no input {', '.join(unknown)}")


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in functional ATen calls."""
    try:
        functional: ExportedProgram = program.run_decompositions({})
        return functional
    except Exception as error:
        raise MpccError(f"PyTorch cannot make the exported program functional: {_reason(error)}") from error


# A file


def save_model(
    model: nn.Module,
    path: str | Path,
    example_inputs: Inputs | None = None,
    tokenizer: object | None = None,
    *,
    sequence_length: int | None = None,
) -> None:
    """Write a model so that it can be compiled elsewhere without running code from the file.

    The file is a zip with `model.pt2`, `mpcc.json` (format, version, architecture, config, which tensors there are
    and which require a gradient) and, where a tokenizer is given, `tokenizer.json`.

    Args:
        model: the module, PEFT-wrapped or not.
        path: the file to write.
        example_inputs, sequence_length: as in `mpcc.compiler.frontend.capture`.
        tokenizer: a fast Hugging Face tokenizer, the text of a tokenizer.json, or the path of one.
    """
    loaded = load(model)
    program = exported(loaded, example_inputs, TextShape(sequence_length))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": loaded.architecture,
        "config": loaded.config,
        "tensors": sorted(program.state_dict),
        "trainable": {n: p.requires_grad for n, p in program.state_dict.items() if isinstance(p, nn.Parameter)},
        "peft": peft_json(peft_structure(list(program.state_dict))),
    }
    text = _tokenizer_text(tokenizer)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(META_ENTRY, json.dumps(meta, indent=1))
        archive.writestr(MODEL_ENTRY, buffer.getvalue())
        if text is not None:
            archive.writestr(TOKENIZER_ENTRY, text)


def _tokenizer_text(tokenizer: object | None) -> str | None:
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return str(backend.to_str())
    if isinstance(tokenizer, str) and tokenizer.lstrip().startswith("{"):
        return tokenizer
    if isinstance(tokenizer, (str, Path)):
        path = Path(tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        if path.is_file():
            return path.read_text("utf-8")
        raise MpccError("no tokenizer.json", where=str(path))
    raise MpccError(f"a {type(tokenizer).__name__} has no tokenizer.json", todo="give a fast tokenizer")
