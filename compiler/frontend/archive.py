"""An exported program's file is read by PyTorch only after everything in it that could run has been refused.

`torch.export.load` evaluates sizes, resolves names of functions, writes names of values into Python source and opens
pickles. Here the file is walked first, field by field along PyTorch's own schema: every field that holds text has a
rule below, and a field without a rule, a record that is not known and a value of another type are refused. The file is
read with the same reader that PyTorch uses afterwards, so that both see the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import types
import typing
import zipfile
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.union import _Union
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader
from torch.export.pt2_archive._package import load_pt2

from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.symbols import Refused, is_identifier, is_symbol, parse_guard, parse_size

LARGEST_JSON = 256 * 2**20  # bytes
_RECORDS = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)|\.storage_alignment"
    r"|\.format_version|models/model\.json|data/sample_inputs/model\.pt|extra/[^/]+"
    r"|data/weights/(model_weights_config\.json|weight_[0-9]{1,7})"
    r"|data/constants/(model_constants_config\.json|tensor_[0-9]{1,7})"
)
# where control flow of torch itself comes in: both only wrap a graph of further operations
_WRAPPERS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})
_SCALARS = frozenset(
    {"add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "eq", "ne", "le", "lt", "ge"}
) | {
    "gt",
    "and_",
    "or_",
    "not_",
    "getitem",
}
_SYMBOLIC = frozenset({"sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sum"})
_FILES = frozenset({"from_file"})  # operations of ATen that open a file
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_ ,.>-]{0,200}")  # "tanh", "trunc", "bij,bjk->bik"; no path
_DOTTED = re.compile(r"[A-Za-z0-9_.@-]{0,400}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})

Check = Callable[[str], None]


def load_program(data: bytes) -> ExportedProgram:
    """The exported program in a file of `torch.export.save`.

    Raises:
        MpccError: the file holds something that could run, or that is not known, or PyTorch cannot load it.
    """
    check_archive(data)
    # not torch.export.load: it would try an older form of file next, and log where it failed
    return load_pt2(io.BytesIO(data)).exported_programs["model"]


def check_archive(data: bytes) -> None:
    """Refuse a file that could make PyTorch run, evaluate or unpickle anything, or that unpacks to more than it is.

    Raises:
        MpccError: what is wrong with it, in one line.
    """
    try:
        _check(data)
    except (MpccError, Refused) as error:
        raise MpccError(
            f"cannot load the exported program: {error}",
            todo="export the model again with torch.export.save or mpcc.save",
        ) from None
    except RecursionError:
        raise MpccError("cannot load the exported program: its description is nested too deeply") from None


def _check(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        top = [n for n in archive.namelist() if "/" not in n]
        check_stored(archive, len(data))
    if top:  # the form that PyTorch wrote before 2.8, whose weights are one pickle
        raise Refused(f"it has a file {top[0][:40]!r} that is not known")
    try:
        reader = PT2ArchiveReader(io.BytesIO(data))
        names = reader.get_file_names()
    except Exception as error:  # whatever a broken archive makes of the reader
        raise Refused(f"it is no archive of PyTorch ({type(error).__name__})") from None
    for name in names:
        if not _RECORDS.fullmatch(name):
            raise Refused(f"it has a file {name[:60]!r} that is not known")
    if sum(reader.archive_file.get_record_size(n) for n in names) > len(data):
        raise Refused("it unpacks to more than it is")
    _along(schema.ExportedProgram, _json(reader, "models/model.json"), "program")
    for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        if name not in names:
            raise Refused(f"it has no file {name!r}")
        payload = _json(reader, name)
        _along(schema.PayloadConfig, payload, "tensors")
        _check_sizes(payload, len(data))
    if "data/sample_inputs/model.pt" in names:
        _check_pickle(reader.read_bytes("data/sample_inputs/model.pt"))


def check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive whose entries are compressed: PyTorch stores them, and what is compressed may be a bomb.

    Raises:
        MpccError: it is one; `size` is that of the archive in bytes.
    """
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
        raise MpccError("the file is compressed, which no model file is")


def _json(reader: PT2ArchiveReader, name: str) -> object:
    raw = reader.read_bytes(name)
    if len(raw) > LARGEST_JSON:
        raise Refused(f"its {name} is larger than {LARGEST_JSON} bytes")
    try:
        return json.loads(raw)
    except ValueError:
        raise Refused(f"its {name} is not JSON") from None


def _check_sizes(payload: Any, size: int) -> None:
    """A tensor whose stride is 0 may claim any size: none may be much larger than the file."""
    for entry in payload["config"].values():
        elements = 1
        for n in (entry.get("tensor_meta") or {}).get("sizes", ()):
            elements *= n.get("as_int", 1)
        if not 0 <= elements <= 8 * size + 2**20:
            raise Refused("it has a tensor that is larger than the file")


def _check_pickle(data: bytes) -> None:
    """Example inputs are a pickle of tensors alone, read with PyTorch's own unpickler of tensors alone."""
    if not data:
        return
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise Refused("its example inputs are of an old form")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_stored(archive, len(data))


# ** along the schema **
def _along(kind: Any, value: object, place: str) -> None:
    """Check `value` against the type `kind` of PyTorch's schema, and its texts by the rules; `place` names it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            _along(next(a for a in arguments if a is not type(None)), value, place)
    elif origin is list:
        for entry in _typed(value, list, place):
            _along(arguments[0], entry, place)
    elif origin is dict:
        for key, entry in _typed(value, dict, place).items():
            _rule(place + " keys")(key)
            _along(arguments[1], entry, place)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        _typed(value, int, place)
    elif dataclasses.is_dataclass(kind):
        _fields(kind, _typed(value, dict, place))
    elif kind is str:
        _rule(place)(_typed(value, str, place))
    elif kind is float:
        if isinstance(value, bool) or not (isinstance(value, (int, float)) or value in _NUMBERS):
            raise Refused(f"{place} is no number")
    elif kind in (int, bool):
        _typed(value, kind, place)
    else:
        raise Refused(f"{place} is of a kind that is not known")


_NUMBERS = ("Infinity", "-Infinity", "NaN")


def _fields(kind: Any, table: Mapping[str, object]) -> None:
    hints = typing.get_type_hints(kind, globalns=vars(schema))
    if unknown := set(table) - set(hints):
        raise Refused(f"{kind.__name__} has a field {min(unknown)[:40]!r} that is not known")
    if issubclass(kind, _Union) and len(table) != 1:
        raise Refused(f"{kind.__name__} is not one of its forms")
    for key, value in table.items():
        place = f"{kind.__name__}.{key}"
        if place in _NEVER or (place == "PayloadMeta.use_pickle" and value is not False):
            raise Refused(f"it has {_NEVER.get(place, 'a pickled tensor')}")
        _along(hints[key], value, place)


def _typed(value: object, kind: type, place: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(f"{place} is no {kind.__name__}")
    return value


def _rule(place: str) -> Check:
    if place not in _RULES:
        raise Refused(f"{place} is a text of a kind that is not known")
    return _RULES[place]


# ** rules for texts **
def _fits(pattern: re.Pattern[str], what: str) -> Check:
    def check(text: str) -> None:
        if not pattern.fullmatch(text):
            raise Refused(f"{text[:60]!r} is no {what}")

    return check


def _identifier(text: str) -> None:
    if not is_identifier(text):
        raise Refused(f"{text[:60]!r} is no name of a value")


def _argument(text: str) -> None:
    if text:
        _identifier(text)


def _symbol(text: str) -> None:
    if not is_symbol(text):
        raise Refused(f"{text[:60]!r} is no name of a size")


def _size(text: str) -> None:
    try:
        parse_size(text)
    except Refused as error:
        raise Refused(f"the size {text[:60]!r} is not allowed: {error}") from None


def _guard(text: str) -> None:
    try:
        parse_guard(text)
    except Refused as error:
        raise Refused(f"the guard {text[:60]!r} is not allowed: {error}") from None


def _operator(text: str) -> None:
    """An operation of ATen that PyTorch has a schema for, or plain arithmetic with sizes."""
    parts = text.split(".")
    known = (
        (parts[:3] == ["torch", "ops", "aten"] and len(parts) == 5 and _in_aten(parts[3], parts[4]))
        or (parts[:3] == ["torch", "ops", "higher_order"] and len(parts) == 4 and parts[3] in _WRAPPERS)
        or (parts[0] == "_operator" and len(parts) == 2 and parts[1] in _SCALARS)
        or (parts[0] == "torch" and len(parts) == 2 and parts[1] in _SYMBOLIC)
        or (parts[0] == "math" and len(parts) == 2 and parts[1] in ("ceil", "floor", "trunc"))
    )
    if not known:
        raise Refused(f"it calls {text[:60]!r}, which is no operation of a model")


def _in_aten(name: str, overload: str) -> bool:
    if name in _FILES:
        return False
    wanted = "" if overload == "default" else overload
    return any(s.overload_name == wanted for s in torch._C._jit_get_schemas_for_operator(f"aten::{name}"))


def _structure(text: str) -> None:
    """How inputs and outputs are nested: containers, and outputs of transformers; nothing that imports a module."""
    try:
        found = json.loads(text)
    except ValueError:
        raise Refused("the structure of its inputs is not JSON") from None
    if not (isinstance(found, list) and len(found) == 2):
        raise Refused("the structure of its inputs is of a form that is not known")
    _container(found[1])


def _container(spec: object) -> None:
    if not (isinstance(spec, dict) and set(spec) == {"type", "context", "children_spec"}):
        raise Refused("the structure of its inputs is of a form that is not known")
    kind, context = spec["type"], spec["context"]
    if kind is not None:
        output = isinstance(kind, str) and re.fullmatch(r"transformers\.[A-Za-z0-9_.]{1,200}", kind)
        if kind not in _CONTAINERS and not output:
            raise Refused(f"a {str(kind)[:60]!r} among its inputs or outputs is not allowed")
        try:
            names = json.loads(_typed(context, str, "a context"))
        except ValueError:
            raise Refused("the structure of its inputs is not JSON") from None
        if names is not None and not (isinstance(names, list) and all(_is_key(n) for n in names)):
            raise Refused("the names of its inputs or outputs are not allowed")
    for child in _typed(spec["children_spec"], list, "children_spec"):
        _container(child)


def _is_key(name: object) -> bool:
    return isinstance(name, int) or (isinstance(name, str) and is_identifier(name))


def _anything(text: str) -> None:
    """Source lines and module paths: shown, never run."""


_TEXT, _NAME, _PLACE = _fits(_PLAIN_TEXT, "plain word"), _identifier, _fits(_DOTTED, "name of a tensor")
_NEVER: Mapping[str, str] = {
    "Argument.as_custom_obj": "an object of a class of its own",
    "InputSpec.custom_obj": "an object of a class of its own",
}
_RULES: Mapping[str, Check] = {
    "SymExpr.expr_str": _size,
    "ExportedProgram.guards_code": _guard,
    "ExportedProgram.range_constraints keys": _symbol,
    "ExportedProgram.opset_version keys": _fits(_WORD, "word"),
    "ExportedProgram.verifiers": _fits(_WORD, "word"),
    "ExportedProgram.torch_version": _fits(_WORD, "version"),
    "Node.target": _operator,
    "Argument.as_operator": _operator,
    "Node.name": _NAME,
    "Node.metadata keys": _fits(_WORD, "word"),
    "Node.metadata": _anything,
    "GraphModule.metadata keys": _fits(_WORD, "word"),
    "GraphModule.metadata": _anything,
    "GraphModule.treespec_namedtuple_fields keys": _fits(_WORD, "word"),
    "NamedTupleDef.field_names": _NAME,
    "NamedArgument.name": _argument,
    "Argument.as_string": _TEXT,
    "Argument.as_strings": _TEXT,
    "Argument.as_string_to_argument keys": _NAME,
    "ConstantValue.as_string": _TEXT,
    "Device.type": _fits(re.compile(r"[a-z]{1,20}"), "device"),
    "ModuleCallSignature.in_spec": _structure,
    "ModuleCallSignature.out_spec": _structure,
    "ModuleCallSignature.forward_arg_names": _NAME,
    "ModuleCallEntry.fqn": _PLACE,
    "PayloadMeta.path_name": _fits(re.compile(r"(weight|tensor)_[0-9]{1,7}"), "stored tensor"),
    "PayloadConfig.config keys": _PLACE,
    **dict.fromkeys(("InputToConstantInputSpec.name", "GraphArgument.name", "TensorArgument.name"), _NAME),
    **dict.fromkeys(("TokenArgument.name", "SymIntArgument.as_name", "SymFloatArgument.as_name"), _NAME),
    **dict.fromkeys(("SymBoolArgument.as_name", "GradientToUserInputSpec.user_input_name"), _NAME),
    **dict.fromkeys((f"Graph.{kind}_values keys" for kind in ("tensor", "sym_int", "sym_bool", "sym_float")), _NAME),
    **dict.fromkeys(("UserInputMutationSpec.user_input_name",), _NAME),
    **dict.fromkeys(("InputToParameterSpec.parameter_name", "InputToBufferSpec.buffer_name"), _PLACE),
    **dict.fromkeys(("InputToTensorConstantSpec.tensor_constant_name", "BufferMutationSpec.buffer_name"), _PLACE),
    **dict.fromkeys(("ParameterMutationSpec.parameter_name", "GradientToParameterSpec.parameter_name"), _PLACE),
}
