"""JSON that somebody else wrote as dataclasses: every value has the declared type, or the field is named in one error.

Understood are str, int, float, bool, tuples, mappings, optional values and dataclasses of these. A number is finite and
an integer at most LARGEST in magnitude; every text can be shown on a terminal (`printable`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mpcc.compiler.types import printable

LARGEST = 2**53  # beyond, JSON numbers are not exact everywhere
T = TypeVar("T")


class Malformed(ValueError):
    """Which field is not what it should be, in words."""


def decoded(cls: type[T], value: object, where: str = "") -> T:
    """`value`, from `json.loads`, as `cls`: a dataclass or one of the types above; exactly its fields have to be there.

    Raises:
        Malformed: it is not; the message names the first such field, not its value.
    """
    result: T = _decoded(cls, value, where)
    return result


def _decoded(kind: Any, value: object, where: str) -> Any:
    if is_dataclass(kind):
        return _object(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _decoded(next(a for a in arguments if a is not NoneType), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise Malformed(f"{where} is not a list")
        return tuple(_decoded(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        return _table(arguments, value, where)
    return _scalar(kind, value, where)


def _object(cls: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise Malformed(f"{where or 'it'} is not an object")
    types, prefix = _types(cls), f"{where}." if where else ""
    for name in types:
        if name not in value:
            raise Malformed(f"{prefix}{name} is missing")
    if unknown := [k for k in value if k not in types]:
        raise Malformed(f"{where or 'it'} has an unknown field {unknown[0][:40]!r}")
    return cls(**{name: _decoded(kind, value[name], f"{prefix}{name}") for name, kind in types.items()})


@cache
def _types(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _table(arguments: tuple[Any, ...], value: object, where: str) -> dict[Any, Any]:
    """JSON has texts as keys; those of a table of numbers are numbers in decimal."""
    if not isinstance(value, dict):
        raise Malformed(f"{where} is not an object")
    result: dict[Any, Any] = {}
    for text, entry in value.items():
        if arguments[0] is int and not (text.isascii() and text.isdigit() and len(text) < len(str(LARGEST))):
            raise Malformed(f"{where} has a key that is not a number")
        key = int(text) if arguments[0] is int else _scalar(str, text, f"a key of {where}")
        result[key] = _decoded(arguments[1], entry, f"{where} of {text[:40]!r}")
    return result


def _scalar(kind: Any, value: object, where: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        if not printable(value):
            raise Malformed(f"{where} has control characters")
        return value
    if kind in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > LARGEST:
            raise Malformed(f"{where} is too large")
        return kind(value)
    if kind is float and isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed(f"{where} is not finite")
        return value
    raise Malformed(f"{where} is not {_WORDS[kind]}")


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
