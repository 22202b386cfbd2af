"""A model becomes a graph, a store of tensors and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.export import Inputs, TextShape, decomposed, exported
from mpcc.compiler.frontend.implied import implied, rebuilt_from
from mpcc.compiler.frontend.peft import Peft, peft_structure
from mpcc.compiler.frontend.sources import Loaded, load, plain
from mpcc.compiler.frontend.translate import KINDS, translate
from mpcc.compiler.graph.ir import Graph, without_dead_nodes


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
    shape = TextShape(sequence_length, batch_size, token_type_ids)
    return _captured(decomposed(exported(loaded, example_inputs, shape)), loaded)


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
        peft=peft_structure(list(tensors)),
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


def _architecture(program: ExportedProgram) -> str:
    """The class of the outermost module, from what the export recorded."""
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            outermost = next(iter(stack.values()))[1]
            return str(outermost if isinstance(outermost, str) else outermost.__name__).rpartition(".")[2]
    return ""
