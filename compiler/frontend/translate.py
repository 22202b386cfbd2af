"""An exported PyTorch program becomes a graph of mpcc's operations.

Layer paths, tensor names and source lines come from the model file: they are data here and are never interpreted.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from mpcc.compiler.errors import InternalError, MpccError, UnsupportedError
from mpcc.compiler.graph.build import GraphBuilder
from mpcc.compiler.graph.ir import Graph, Origin
from mpcc.compiler.ops import ATEN
from mpcc.compiler.ops.base import NotConvertible, Value, from_torch
from mpcc.compiler.types import Attr, TensorType

KINDS: Mapping[InputKind, str] = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "literal",
}
_FRAME = re.compile(r'File "([^"]*)", line (\d+)')
_NO_EFFECT = re.compile(r"aten\.(_assert_\w+|sym_constrain_range\w*|_assert_async)\.\w+")
_LEFT_OUT = frozenset({"hidden_states", "attentions", "past_key_values", "cross_attentions"})


@dataclass(frozen=True)
class Translated:
    """The graph, and which literal tensors it refers to by the names `const.N`."""

    graph: Graph
    literals: dict[str, torch.Tensor]


@dataclass
class AtenBuilder:
    """What converters append to: nodes are named after the ATen call being converted and have its origin."""

    graph: GraphBuilder = field(default_factory=GraphBuilder)
    literals: dict[str, torch.Tensor] = field(default_factory=dict)
    stem: str = "node"
    origin: Origin = field(default_factory=Origin)
    reserved: frozenset[str] = frozenset()  # names of tensors that literals must not take
    _shared: dict[tuple[str, float], Value] = field(default_factory=dict)

    def leaf(self, op: str, type_: TensorType, **attrs: Attr) -> Value:
        return self._value(self.graph.leaf(self.stem, op, type_, attrs, self.origin))

    def emit(self, op: str, inputs: Sequence[Value], /, **attrs: Attr) -> Value:
        return self._value(self.graph.emit(self.stem, op, [v.name for v in inputs], attrs, origin=self.origin))

    def literal(self, tensor: torch.Tensor) -> Value:
        """A constant; equal numbers share one."""
        key = (str(tensor.dtype), tensor.item()) if tensor.dim() == 0 else None
        if key in self._shared:
            return self._shared[key]
        number = len(self.literals)
        while f"const.{number}" in self.reserved or f"const.{number}" in self.literals:
            number += 1
        name = f"const.{number}"
        self.literals[name] = tensor
        attrs: dict[str, Attr] = {"tensor": name}
        value = self._value(self.graph.leaf(f"const_{number}", "constant", tensor_type(tensor), attrs, self.origin))
        if key is not None:
            self._shared[key] = value
        return value

    def _value(self, name: str) -> Value:
        return Value(name, self.graph.type(name))


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """Shape and element type of a tensor.

    Raises:
        MpccError: a size is not fixed, or the element type is not supported.
    """
    if any(not isinstance(n, int) for n in tensor.shape):
        raise MpccError(
            "the exported program has sizes that are not fixed",
            todo="export it with fixed shapes, or give example inputs of the wanted shape",
        )
    return TensorType(tuple(tensor.shape), from_torch(tensor.dtype))


def sanitise(name: str) -> str:
    """A node name of [a-z0-9_], beginning with a letter."""
    clean = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "value"
    return clean if clean[0].isalpha() else f"n_{clean}"


def origin_of(node: FxNode) -> Origin:
    """Layer path and `file.py:line` of a call, from what the export recorded."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    frames = _FRAME.findall(str(node.meta.get("stack_trace") or ""))
    outside = [f for f in frames if "/torch/" not in f[0].replace("\\", "/")]
    source = ""
    if frames:
        file, line = (outside or frames)[-1]
        source = f"{PurePath(file.replace(chr(92), '/')).name}:{line}"
    return Origin(paths[-1] if paths else "", source)


def output_names(program: ExportedProgram) -> list[str | None]:
    """For each flat result its name, or None where it is left out (hidden states, attention weights, caches)."""
    spec = program.call_spec.out_spec
    count = sum(s.kind is OutputKind.USER_OUTPUT for s in program.graph_signature.output_specs)
    if spec is None or spec.num_leaves != count:
        return [f"output_{i}" for i in range(count)] if count > 1 else ["output"]
    names: list[str | None] = [None] * count
    _name_leaves(pytree.tree_unflatten(list(range(count)), spec), "", names)
    return names


def _name_leaves(tree: Any, name: str, names: list[str | None]) -> None:
    if isinstance(tree, int):
        names[tree] = name or "output"
        return
    prefix = f"{name}_" if name else ""
    if isinstance(tree, Mapping):
        items: Iterable[tuple[str, Any]] = ((str(k), v) for k, v in tree.items())
    elif isinstance(tree, (tuple, list)):
        prefix = prefix or "output_"
        items = ((str(i), v) for i, v in enumerate(tree))
        if len(tree) == 1 and not name:
            _name_leaves(tree[0], "output", names)
            return
    else:
        return
    for key, value in items:
        if key not in _LEFT_OUT:
            _name_leaves(value, f"{prefix}{key}", names)


def translate(
    program: ExportedProgram, canonical: Mapping[str, str] | None = None, implied: Container[str] = ()
) -> Translated:
    """Convert a functionalised export (`run_decompositions({})`) to a graph.

    Args:
        program: the export; its sizes must be fixed.
        canonical: for tied weights, the name that stands for a name.
        implied: names of tensors that are part of the architecture (see `implied.py`), which become constants. Every
            other tensor is a param, so that it is private until shown public: a tensor kept as a plain attribute of a
            module reaches us as a constant, too.

    Raises:
        UnsupportedError: operations mpcc does not know, all of them in one error.
        MpccError: the program writes to its buffers or has sizes that are not fixed.
    """
    for out in program.graph_signature.output_specs:
        if out.kind is not OutputKind.USER_OUTPUT:
            raise MpccError(f"the model writes to its own state ({out.target})", todo="make forward a pure function")
    held = (s.target for s in program.graph_signature.input_specs if s.target is not None)
    builder = AtenBuilder(reserved=frozenset(held))
    env: dict[FxNode, Any] = _leaves(program, builder, canonical or {}, implied)
    gaps: list[tuple[str, Origin, str]] = []
    broken: set[FxNode] = set()
    for node in program.graph.nodes:
        if node.op == "call_function":
            if any(i in broken for i in node.all_input_nodes):
                broken.add(node)  # what cannot be typed; say only what is missing itself
                if _known(node):
                    continue
            reason = _convert(node, builder, env)
            if reason is not None:
                broken.add(node)
                gaps.append((str(node.target), origin_of(node), reason))
    if gaps:
        raise _unsupported(gaps)
    outputs = _outputs(program, env)
    return Translated(builder.graph.graph(outputs), builder.literals)


def _leaves(
    program: ExportedProgram, builder: AtenBuilder, canonical: Mapping[str, str], implied: Container[str]
) -> dict[FxNode, Any]:
    env: dict[FxNode, Any] = {}
    made: dict[str, Value] = {}
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            env[node] = getattr(spec.arg, "value", value)
            continue
        if spec.kind is InputKind.USER_INPUT:
            builder.stem, builder.origin = sanitise(node.name), Origin()
            env[node] = builder.leaf("input", tensor_type(value), role="client")
            continue
        if spec.kind not in KINDS or spec.target is None:
            raise MpccError(f"the exported program has an input of kind {spec.kind.name}, which is not supported")
        name = canonical.get(spec.target, spec.target)
        if name not in made:
            op = "constant" if name in implied else "param"
            builder.stem, builder.origin = sanitise(name), Origin(name.rpartition(".")[0])
            made[name] = builder.leaf(op, tensor_type(value), tensor=name)
        env[node] = made[name]
    return env


def _known(node: FxNode) -> bool:
    return node.target is operator.getitem or str(node.target) in ATEN or bool(_NO_EFFECT.fullmatch(str(node.target)))


def _convert(node: FxNode, builder: AtenBuilder, env: dict[FxNode, Any]) -> str | None:
    """Convert one call; the reason where that is impossible."""
    if node.target is operator.getitem:
        source, index = node.args
        env[node] = env[source][index]  # type: ignore[index]
        return None
    name = str(node.target)
    if _NO_EFFECT.fullmatch(name):
        return None
    if name not in ATEN or not isinstance(node.target, OpOverload):
        return "mpcc does not know it"
    builder.stem, builder.origin = sanitise(node.name), origin_of(node)
    try:
        env[node] = ATEN[name](builder, _arguments(node, env))
    except NotConvertible as error:
        return error.what
    _check_type(node, env[node])
    return None


def _arguments(node: FxNode, env: Mapping[FxNode, Any]) -> dict[str, Any]:
    """The arguments of a call by schema name, defaults filled in."""
    target: Any = node.target
    result: dict[str, Any] = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(node.args) and not argument.kwarg_only:
            value: Any = node.args[i]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        else:
            value = argument.default_value
        result[argument.name] = _resolve(value, env)
    if any(isinstance(v, torch.SymInt) for v in pytree.tree_leaves(result)):
        raise NotConvertible("a size that is not fixed")
    return result


def _resolve(value: Any, env: Mapping[FxNode, Any]) -> Any:
    if isinstance(value, FxNode):
        return env[value]
    if isinstance(value, (list, tuple)):
        return [_resolve(v, env) for v in value]
    return value


def _check_type(node: FxNode, value: Any) -> None:
    """Our shape rule must agree with what PyTorch recorded; anything else is a bug in an operation's declaration."""
    recorded = node.meta.get("val")
    if isinstance(value, Value) and isinstance(recorded, torch.Tensor):
        expected = tensor_type(recorded)
        if expected != value.type:
            raise InternalError(f"{node.target} gives {expected}, its translation {value.type}")


def _outputs(program: ExportedProgram, env: Mapping[FxNode, Any]) -> tuple[tuple[str, str], ...]:
    (last,) = (n for n in program.graph.nodes if n.op == "output")
    results: list[tuple[str, str]] = []
    for name, value in zip(output_names(program), last.args[0], strict=True):
        if name is not None and isinstance(value, FxNode) and isinstance(env[value], Value):
            results.append((name, env[value].name))
    if not results:
        raise MpccError("the model returns no tensor")
    return tuple(results)


def _unsupported(gaps: Sequence[tuple[str, Origin, str]]) -> UnsupportedError:
    lines = []
    for (op, reason), count in Counter((op, reason) for op, _, reason in gaps).items():
        origins = [o for n, o, r in gaps if (n, r) == (op, reason)]
        places = [f"{o.layer or 'the model itself'} ({o.source or 'no source line'})" for o in origins]
        shown = list(dict.fromkeys(places))
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        lines.append(f"  {op} x{count}: {reason}; in {', '.join(shown[:4])}{more}")
    return UnsupportedError(
        f"{len(lines)} kinds of operation in this model are not supported:\n" + "\n".join(lines) + "\n",
        todo="replace them in the model, or ask for them to be added",
    )
