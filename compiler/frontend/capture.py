"""A model becomes a graph, a store of tensors and what is known about them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.implied import implied, rebuilt_from
from mpcc.compiler.frontend.sources import (
    FORMAT,
    META_ENTRY,
    MODEL_ENTRY,
    TOKENIZER_ENTRY,
    VERSION,
    Loaded,
    forward_names,
    load,
    plain,
)
from mpcc.compiler.frontend.translate import KINDS, translate
from mpcc.compiler.graph.ir import Graph, without_dead_nodes

Inputs = Union[Mapping[str, torch.Tensor], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Peft:
    """Which tensors belong to which part of a PEFT model, all by canonical name.

    `other` holds what an adapter has besides (magnitude vectors of DoRA, biases, embeddings).
    """

    adapter: str
    base_layer: tuple[str, ...]
    lora_a: tuple[str, ...]
    lora_b: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    other: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captured:
    """A captured model.

    Attributes:
        graph: what the model computes; every user input has the role "client".
        tensors: params, buffers and literals by canonical name (the name in the module; "const.N" for literals).
        kinds: name -> "parameter" | "buffer" | "non_persistent_buffer" | "literal".
        aliases: other name of a tied weight -> its canonical name.
        trainable: name -> whether it required a gradient; no evidence of what is private.
        peft: the adapter's structure, if there is one.
        config: the Hugging Face config, if there is one.
        tokenizer_json: the content of tokenizer.json, if it came with the model.
        architecture: class name of the model, or the empty string.
        implied: tensor that is no parameter and that the architecture implies -> why; all of them are constants.
    """

    graph: Graph
    tensors: dict[str, torch.Tensor]
    kinds: dict[str, str]
    aliases: dict[str, str]
    trainable: dict[str, bool]
    peft: Peft | None
    config: dict[str, Any] | None
    tokenizer_json: str | None
    architecture: str
    implied: Mapping[str, str] = field(default_factory=dict)


def capture(
    source: object,
    example_inputs: Inputs | None = None,
    *,
    base: str | Path | None = None,
    sequence_length: int | None = None,
    batch_size: int = 1,
    token_type_ids: bool = False,
    allow_pickle: bool = False,
) -> Captured:
    """Capture a model with fixed shapes.

    Args:
        source: an nn.Module (also PEFT), an ExportedProgram, or the path of an exported program, of a file written by
            `save_model`, of a Hugging Face folder or of a PEFT adapter's folder.
        example_inputs: tensors by argument name, or in order; they fix the shapes. An exported program has its own.
        base: the base model's folder, for an adapter.
        sequence_length: makes example inputs for a text model where none are given.
        batch_size: of those example inputs.
        token_type_ids: whether those have token types as an input.
        allow_pickle: open pickled modules, which runs the code inside.

    Raises:
        UnsupportedError: operations mpcc does not know, all listed.
        MpccError: the model cannot be opened or exported; the message says why.
    """
    loaded = load(source, base=base, allow_pickle=allow_pickle)
    options = (sequence_length, batch_size, token_type_ids)
    program = _program(loaded, example_inputs, options)
    return _captured(_decomposed(program), loaded)


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
        example_inputs, sequence_length: as in `capture`.
        tokenizer: a fast Hugging Face tokenizer, the text of a tokenizer.json, or the path of one.
    """
    loaded = load(model)
    program = _program(loaded, example_inputs, (sequence_length, 1, False))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": loaded.architecture,
        "config": loaded.config,
        "tensors": sorted(program.state_dict),
        "trainable": {n: p.requires_grad for n, p in program.state_dict.items() if isinstance(p, nn.Parameter)},
        "peft": _peft_json(_peft(list(program.state_dict))),
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


# Export


def _program(loaded: Loaded, example_inputs: Inputs | None, options: tuple[int | None, int, bool]) -> ExportedProgram:
    if loaded.program is not None:
        return _specialised(loaded.program, example_inputs)
    if loaded.module is None:
        raise MpccError("there is no model to capture")
    names = forward_names(loaded.module)
    args, kwargs = _examples(example_inputs, names, options)
    return _export(loaded.module, args, kwargs)


def _examples(
    given: Inputs | None, names: Sequence[str], options: tuple[int | None, int, bool]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Positional and named example inputs, each tensor its own: export takes equal tensors for one input."""
    length, batch, types = options
    if isinstance(given, Mapping):
        unknown = [n for n in given if n not in names]
        if unknown and names:
            raise MpccError(f"the model takes no input {', '.join(unknown)}", todo=f"it takes {', '.join(names)}")
        return (), {k: _example(k, v) for k, v in given.items()}
    if given is not None:
        tensors = (given,) if isinstance(given, torch.Tensor) else tuple(given)
        return tuple(_example(str(i), v) for i, v in enumerate(tensors)), {}
    if length is None:
        raise MpccError("the shapes of the inputs are not known", todo="give example_inputs or sequence_length")
    if "input_ids" not in names:
        raise MpccError("example inputs can be made for text models only", todo="give example_inputs")
    made = {"input_ids": torch.zeros(batch, length, dtype=torch.int64)}
    if "attention_mask" in names:
        made["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    if types:
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
        args, kwargs = _examples(example_inputs, [], (None, 1, False))
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


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    try:
        functional: ExportedProgram = program.run_decompositions({})
        return functional
    except Exception as error:
        raise MpccError(f"PyTorch cannot make the exported program functional: {_reason(error)}") from error


# What is known about the tensors


def _captured(program: ExportedProgram, loaded: Loaded) -> Captured:
    store, kinds = _store(program)
    aliases = _aliases(store)
    architecture = loaded.architecture or _architecture(program)
    module = None if loaded.module is None else plain(loaded.module)
    reasons = implied(store, kinds, rebuilt_from(module, architecture, loaded.config))
    translated = translate(program, aliases, reasons)
    graph = without_dead_nodes(translated.graph)
    used = {str(n.attr("tensor")) for n in graph.nodes if n.op in ("param", "constant")}
    everything = {**store, **translated.literals}
    tensors = {n: _plain_tensor(t) for n, t in everything.items() if n in used}
    trainable = {n: t.requires_grad for n, t in store.items() if n in used and kinds[n] == "parameter"}
    if loaded.trainable is not None:
        trainable |= {n: v for n, v in loaded.trainable.items() if n in trainable}
    return Captured(
        graph=graph,
        tensors=tensors,
        kinds={n: kinds.get(n, "literal") for n in tensors},
        aliases={a: n for a, n in aliases.items() if n in used},
        trainable=trainable,
        peft=_peft(list(tensors)),
        config=loaded.config,
        tokenizer_json=loaded.tokenizer_json,
        architecture=architecture,
        implied={n: r for n, r in reasons.items() if n in used and n not in aliases},
    )


def _plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Without gradient and, for 16-bit floats, widened: what the element types of the graph can hold."""
    plain = tensor.detach()
    if plain.dtype in (torch.float16, torch.bfloat16):
        return plain.float()
    if plain.dtype in (torch.uint8, torch.int8, torch.int16):
        return plain.int()
    return plain


def _store(program: ExportedProgram) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors a program holds and their kinds, by name in the module."""
    tensors: dict[str, torch.Tensor] = {}
    kinds: dict[str, str] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind not in KINDS or spec.target is None:
            continue
        held = program.state_dict if spec.target in program.state_dict else program.constants
        value = held.get(spec.target)
        if not isinstance(value, torch.Tensor):
            raise MpccError(f"the exported program does not hold its tensor {spec.target!r}")
        hidden = spec.kind is InputKind.BUFFER and spec.persistent is False
        tensors[spec.target] = value
        kinds[spec.target] = "non_persistent_buffer" if hidden else KINDS[spec.kind]
    return tensors, kinds


def _aliases(store: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Other name -> first name, for tensors that are one piece of memory seen the same way.

    Identity of objects is no help: it is lost when a program is loaded from a file.
    """
    first: dict[tuple[object, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in store.items():
        if tensor.numel() == 0 or tensor.data_ptr() == 0:
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if first.setdefault(key, name) != name:
            aliases[name] = first[key]
    return aliases


_LORA = re.compile(r"(?:^|\.)(lora_\w+|modules_to_save)\.([^.]+)(?:\.|$)")


def _peft(names: Sequence[str]) -> Peft | None:
    """The structure of a PEFT model, read off the names it gives its tensors."""
    parts: dict[str, list[str]] = {"base_layer": [], "lora_A": [], "lora_B": [], "modules_to_save": [], "other": []}
    adapters: list[str] = []
    for name in names:
        match = _LORA.search(name)
        if match:
            parts[match[1] if match[1] in parts else "other"].append(name)
            adapters.append(match[2])
        elif ".base_layer." in name:
            parts["base_layer"].append(name)
    if not adapters:
        return None
    return Peft(adapters[0], *(tuple(parts[k]) for k in ("base_layer", "lora_A", "lora_B", "modules_to_save", "other")))


def _peft_json(peft: Peft | None) -> dict[str, Any] | None:
    return None if peft is None else {k: getattr(peft, k) for k in Peft.__dataclass_fields__}


def _architecture(program: ExportedProgram) -> str:
    """The class of the outermost module, from what the export recorded."""
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            outermost = next(iter(stack.values()))[1]
            return str(outermost if isinstance(outermost, str) else outermost.__name__).rpartition(".")[2]
    return ""
