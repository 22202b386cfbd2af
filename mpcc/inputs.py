"""From what a user gives to exactly the tensors a program takes; every mistake is found before anything runs.

A tensor has the program's shape, with one exception: where the program takes an attention mask and one is given, rows
of ids, types and mask that are shorter than the compiled length are padded (the mask says that the rest is padding).
Texts are tokenised with the bundle's tokenizer and padded likewise. Nothing is ever cut silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mpcc.compiler.bundle.manifest import IDS_INPUT, MASK_INPUT, TYPES_INPUT, InputSpec
from mpcc.compiler.errors import InputError
from mpcc.compiler.ops.base import TO_TORCH

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT = "text"
_IDS = "give token ids instead of text"
_PADDED = (IDS_INPUT, TYPES_INPUT, MASK_INPUT)


def prepare_inputs(
    given: Mapping[str, object],
    specs: Sequence[InputSpec],
    tokenizer_json: str | None = None,
    *,
    truncate: bool = False,
) -> dict[str, torch.Tensor]:
    """The program's input tensors.

    Args:
        given: tensors, arrays or nested lists by input name, or {"text": a text, or one per row of the batch}.
        specs: the program's inputs.
        tokenizer_json: content of tokenizer.json, for texts.
        truncate: cut texts that are longer than the compiled length; otherwise they are an error.

    Raises:
        InputError: wrong names, shapes, kinds of elements or values; no message holds a value of an input.
    """
    if not isinstance(given, Mapping):
        raise InputError("an input is not an object with the program's input names", todo=_takes(specs))
    if TEXT in given and all(s.name != TEXT for s in specs):
        given = _from_text(given, specs, tokenizer_json, truncate)
    _check_names(given, specs)
    tensors = {s.name: _tensor(given[s.name], s) for s in specs}
    tensors = _padded(tensors, specs)
    for spec in specs:
        _check(tensors[spec.name], spec)
    return tensors


def _takes(specs: Sequence[InputSpec]) -> str:
    return f"the program takes {', '.join(s.name for s in specs)}"


def _check_names(given: Mapping[str, object], specs: Sequence[InputSpec]) -> None:
    known = [s.name for s in specs]
    if unknown := [str(n) for n in given if n not in known]:
        raise InputError(f"the program has no input {unknown[0][:60]!r}", todo=_takes(specs))
    if missing := [n for n in known if n not in given]:
        raise InputError(f"the input {missing[0]!r} is missing", todo=_takes(specs))


def _tensor(value: object, spec: InputSpec) -> torch.Tensor:
    """A tensor of the spec's kind of element; any integer type will do for integers."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
    else:
        try:
            tensor = torch.as_tensor(value)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            raise InputError(f"input {spec.name!r} is not an array: rows of unequal length, or no numbers") from None
    wanted = TO_TORCH[spec.dtype]
    if tensor.is_complex():
        raise InputError(f"input {spec.name!r} holds complex numbers, the program takes {spec.dtype}")
    if tensor.numel() == 0:
        tensor = tensor.to(wanted)
    if tensor.is_floating_point() and not wanted.is_floating_point:
        raise InputError(f"input {spec.name!r} holds floating-point numbers, the program takes integers ({spec.dtype})")
    if tensor.dtype == torch.bool and wanted is not torch.bool and spec.name != MASK_INPUT:
        raise InputError(f"input {spec.name!r} holds truth values, the program takes {spec.dtype}")
    return tensor.to(wanted)


# ** length **
def _padded(tensors: dict[str, torch.Tensor], specs: Sequence[InputSpec]) -> dict[str, torch.Tensor]:
    """Rows filled up to the compiled length, where a mask can say so; too long ones are an error."""
    by_name = {s.name: s for s in specs}
    parts = [n for n in _PADDED if n in by_name and len(by_name[n].shape) == 2]
    for name in parts:
        shape, spec = tuple(tensors[name].shape), by_name[name]
        if len(shape) == 2 and shape[1] > spec.shape[1]:
            raise InputError(
                f"input {name!r} is longer than compiled: {shape[1]} tokens, compiled for {spec.shape[1]}",
                todo="shorten it, or compile again with a larger sequence length",
            )
    lengths = {tensors[n].shape[1] for n in parts if tensors[n].dim() == 2}
    if MASK_INPUT not in parts or len(lengths) != 1 or any(s.name not in _PADDED for s in specs):
        return tensors
    missing = by_name[MASK_INPUT].shape[1] - lengths.pop()
    if missing <= 0 or any(tensors[n].dim() != 2 for n in parts):
        return tensors
    return tensors | {n: torch.nn.functional.pad(tensors[n], (0, missing), value=by_name[n].pad) for n in parts}


# ** checks **
def _check(tensor: torch.Tensor, spec: InputSpec) -> None:
    if tuple(tensor.shape) != spec.shape:
        hint = "give an attention_mask to have it padded" if spec.name == IDS_INPUT else ""
        raise InputError(
            f"input {spec.name!r} has the shape {_shape(tensor.shape)}, the program takes {_shape(spec.shape)}",
            todo=hint if tensor.dim() == len(spec.shape) and tensor.shape[0] == spec.shape[0] else "",
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InputError(f"input {spec.name!r} holds a value that is not finite")
    if spec.highest is not None and bool(((tensor < 0) | (tensor > spec.highest)).any()):
        raise InputError(f"input {spec.name!r} holds an id that is out of range; ids are 0 to {spec.highest}")
    if spec.name == MASK_INPUT and not tensor.is_floating_point():
        _check_mask(tensor.to(torch.int64))


def _check_mask(mask: torch.Tensor) -> None:
    if bool(((mask != 0) & (mask != 1)).any()):
        raise InputError(f"input {MASK_INPUT!r} holds something other than 0 and 1")
    rows = mask.reshape(-1, mask.shape[-1]) if mask.dim() else mask.reshape(1, 1)
    if bool((rows.sum(-1) == 0).any()):
        raise InputError(f"input {MASK_INPUT!r} masks a whole row: there is no token to attend to")


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(n) for n in shape) + "]"


# ** text **
def _from_text(
    given: Mapping[str, object], specs: Sequence[InputSpec], tokenizer_json: str | None, truncate: bool
) -> dict[str, object]:
    """Token ids, mask and types of the text, as lists; other inputs are kept."""
    names = [s.name for s in specs]
    if IDS_INPUT not in names:
        raise InputError("the program takes no text", todo=_takes(specs))
    if tokenizer_json is None:
        raise InputError("the program carries no tokenizer", todo=f"give token ids: {_takes(specs)}")
    shape = next(s.shape for s in specs if s.name == IDS_INPUT)
    texts = [given[TEXT]] if isinstance(given[TEXT], str) else given[TEXT]
    if not isinstance(texts, Sequence) or not all(isinstance(t, str) for t in texts) or len(shape) != 2:
        raise InputError('"text" is neither a text nor a list of texts')
    if len(texts) != shape[0]:
        raise InputError(f"there are {len(texts)} texts, the program was compiled for {shape[0]} at a time")
    encoded = _encodings(tokenizer_json, list(texts), shape[1] if truncate else None)
    longest = max(len(e.ids) for e in encoded)
    if longest > shape[1]:
        raise InputError(
            f"the text is longer than compiled: {longest} tokens, compiled for {shape[1]}",
            todo="shorten it, let it be cut (truncate), or compile again with a larger sequence length",
        )
    if MASK_INPUT not in names and any(len(e.ids) != shape[1] for e in encoded):
        raise InputError(f"the program has no attention mask, so a text must have exactly {shape[1]} tokens")
    pad = next(s.pad for s in specs if s.name == IDS_INPUT)
    parts: dict[str, list[list[int]]] = {
        IDS_INPUT: [e.ids + [pad] * (shape[1] - len(e.ids)) for e in encoded],
        MASK_INPUT: [[1] * len(e.ids) + [0] * (shape[1] - len(e.ids)) for e in encoded],
        TYPES_INPUT: [e.type_ids + [0] * (shape[1] - len(e.ids)) for e in encoded],
    }
    return {k: v for k, v in given.items() if k != TEXT} | {k: v for k, v in parts.items() if k in names}


def _encodings(tokenizer_json: str, texts: list[str], length: int | None) -> list[Any]:
    """Encodings without padding; the tokenizer's own limits do not apply, the program's do."""
    tokenizer = tokenizer_of(tokenizer_json)
    if length is not None:
        tokenizer.enable_truncation(length)
    return encoded(tokenizer, texts)


def tokenizer_of(tokenizer_json: str | None) -> Tokenizer:
    """The tokenizer of a program, which neither pads nor cuts.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    if tokenizer_json is None:
        raise InputError("the program carries no tokenizer", todo=_IDS)
    with _refused("the program's tokenizer cannot be read"):
        tokenizer: Tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: list[str]) -> list[Any]:
    """Texts as encodings. InputError where the tokenizer, which came with the program, fails on one."""
    with _refused("the text cannot be read with the program's tokenizer"):
        return list(tokenizer.encode_batch(texts))


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Errors of the tokenizers' library, which raises nothing specific and whose panics are no Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(what, todo=_IDS) from None


# ** random inputs **
def random_inputs(specs: Sequence[InputSpec], count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Valid inputs for a first look at ranges: ids over the whole table, masks of every length, normal floats.

    Real text reaches other ranges than random ids do: what is compiled this way is for costs, not for use.
    """
    generator = torch.Generator().manual_seed(seed)
    return [{s.name: _random(s, generator) for s in specs} for _ in range(count)]


def _random(spec: InputSpec, generator: torch.Generator) -> torch.Tensor:
    dtype = TO_TORCH[spec.dtype]
    if spec.name == MASK_INPUT and spec.shape:
        kept = torch.randint(1, spec.shape[-1] + 1, (*spec.shape[:-1], 1), generator=generator)
        return (torch.arange(spec.shape[-1]) < kept).to(dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(dtype)
    highest = 1 if spec.highest is None or spec.name == TYPES_INPUT else spec.highest
    return torch.randint(0, min(highest, spec.highest or highest) + 1, spec.shape, generator=generator).to(dtype)
