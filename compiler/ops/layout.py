"""Operations that move numbers about and change none of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mpcc.compiler.ops.base import (
    Args,
    Attrs,
    Builder,
    Converter,
    Op,
    Sources,
    Tensors,
    Types,
    Value,
    aligned,
    axis,
    broadcast,
    fail,
    integer,
    ints,
    only,
    promote,
)
from mpcc.compiler.types import TensorType

_END = 2**62  # what ATen passes for "to the end" is 2**63 - 1


def reshape(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    """x in another shape; one size may be -1."""
    known = math.prod(n for n in shape if n != -1)
    target = tuple(math.prod(x.shape) // max(known, 1) if n == -1 else n for n in shape)
    return x if target == x.shape else b.emit("reshape", [x], shape=target)


def permute(b: Builder, x: Value, dims: Sequence[int]) -> Value:
    order = tuple(axis(d, len(x.shape)) for d in dims)
    return x if order == tuple(range(len(order))) else b.emit("permute", [x], dims=order)


def cut(b: Builder, x: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
    """x[start:stop:step] along `dim` with Python's meaning of bounds."""
    dim = axis(dim, len(x.shape))
    start, stop, step = slice(start, min(stop, _END), step).indices(x.shape[dim])
    stop = max(start, stop)
    if (start, stop, step) == (0, x.shape[dim], 1):
        return x
    return b.emit("slice", [x], dim=dim, start=start, stop=stop, step=step)


def _view(key: str) -> Converter:
    return lambda b, a: reshape(b, a["self"], a[key])


def _unsqueeze(b: Builder, a: Args) -> Value:
    x, dim = a["self"], axis(a["dim"], len(a["self"].shape) + 1)
    return reshape(b, x, (*x.shape[:dim], 1, *x.shape[dim:]))


def _squeeze(b: Builder, a: Args) -> Value:
    x, dims = a["self"], a.get("dim")
    rank = len(x.shape)
    chosen = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {axis(d, rank) for d in chosen} if rank else set()
    return reshape(b, x, [n for d, n in enumerate(x.shape) if not (d in gone and n == 1)])


def _flatten(b: Builder, a: Args) -> Value:
    x = a["self"]
    first, last = axis(a["start_dim"], len(x.shape)), axis(a["end_dim"], len(x.shape))
    middle = math.prod(x.shape[first : last + 1])
    return reshape(b, x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


def _unflatten(b: Builder, a: Args) -> Value:
    x, dim = a["self"], axis(a["dim"], len(a["self"].shape))
    known = math.prod(n for n in a["sizes"] if n != -1)
    sizes = [x.shape[dim] // max(known, 1) if n == -1 else n for n in a["sizes"]]
    return reshape(b, x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


def _transpose(b: Builder, a: Args) -> Value:
    x = a["self"]
    order = list(range(len(x.shape)))
    i, j = axis(a["dim0"], len(order)), axis(a["dim1"], len(order))
    order[i], order[j] = order[j], order[i]
    return permute(b, x, order)


def _last_two(b: Builder, a: Args) -> Value:
    rank = len(a["self"].shape)
    return a["self"] if rank < 2 else permute(b, a["self"], [*range(rank - 2), rank - 1, rank - 2])


def _expand_to(b: Builder, x: Value, size: Sequence[int]) -> Value:
    old = (1,) * (len(size) - len(x.shape)) + x.shape
    shape = tuple(o if n == -1 else n for n, o in zip(size, old, strict=True))
    return x if shape == x.shape else b.emit("expand", [x], shape=shape)


def _repeat(b: Builder, a: Args) -> Value:
    """repeat(x, r): [d...] -> [1, d]... expanded to [r, d]... and joined."""
    x, times = a["self"], a["repeats"]
    old = (1,) * (len(times) - len(x.shape)) + x.shape
    apart = reshape(b, x, [n for size in old for n in (1, size)])
    wide = _expand_to(b, apart, [n for pair in zip(times, old, strict=True) for n in pair])
    return reshape(b, wide, [t * n for t, n in zip(times, old, strict=True)])


def _repeat_interleave(b: Builder, a: Args) -> Value:
    """Each place along a dimension, of the flat tensor where there is none, repeated beside itself."""
    x, times = a["self"], a["repeats"]
    x = reshape(b, x, (math.prod(x.shape),)) if a["dim"] is None else x
    dim = axis(0 if a["dim"] is None else a["dim"], len(x.shape))
    before, size, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1 :]
    wide = _expand_to(b, reshape(b, x, (*before, size, 1, *after)), (*before, size, times, *after))
    return reshape(b, wide, (*before, size * times, *after))


def _slice(b: Builder, a: Args) -> Value:
    start = 0 if a["start"] is None else a["start"]
    return cut(b, a["self"], a["dim"], start, _END if a["end"] is None else a["end"], a["step"])


def _narrow(b: Builder, a: Args) -> Value:
    return cut(b, a["self"], a["dim"], a["start"], a["start"] + a["length"])


def _pick(b: Builder, x: Value, dim: int, index: int) -> Value:
    """x[..., index, ...] without the dimension `dim`."""
    index %= x.shape[dim]
    piece = cut(b, x, dim, index, index + 1)
    return reshape(b, piece, (*x.shape[:dim], *x.shape[dim + 1 :]))


def _select(b: Builder, a: Args) -> Value:
    return _pick(b, a["self"], axis(a["dim"], len(a["self"].shape)), a["index"])


def _unbind(b: Builder, a: Args) -> list[Value]:
    dim = axis(a["dim"], len(a["self"].shape))
    return [_pick(b, a["self"], dim, i) for i in range(a["self"].shape[dim])]


def _pieces(b: Builder, x: Value, dim: int, sizes: Sequence[int]) -> list[Value]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [cut(b, x, dim, s, s + n) for s, n in zip(starts, sizes, strict=True)]


def _split(b: Builder, a: Args) -> list[Value]:
    x, dim, size = a["self"], axis(a["dim"], len(a["self"].shape)), a["split_size"]
    total = x.shape[dim]
    return _pieces(b, x, dim, [min(size, total - s) for s in range(0, total, size)])


def _split_sizes(b: Builder, a: Args) -> list[Value]:
    return _pieces(b, a["self"], a["dim"], a["split_sizes"])


def _chunk(b: Builder, a: Args) -> list[Value]:
    x, dim = a["self"], axis(a["dim"], len(a["self"].shape))
    size = -(-x.shape[dim] // a["chunks"])
    return _split(b, {"self": x, "dim": dim, "split_size": size})


def _cat(b: Builder, a: Args) -> Value:
    tensors = [t for t in a["tensors"] if t.shape != (0,)]  # PyTorch lets an empty vector join anything
    only(bool(tensors), "concatenation of nothing")
    return tensors[0] if len(tensors) == 1 else b.emit("concat", tensors, dim=axis(a["dim"], len(tensors[0].shape)))


def _stack(b: Builder, a: Args) -> Value:
    rows = [_unsqueeze(b, {"self": t, "dim": a["dim"]}) for t in a["tensors"]]
    return _cat(b, {"tensors": rows, "dim": a["dim"]})


def _same(key: str = "self") -> Converter:
    return lambda b, a: a[key]


def _dropout(b: Builder, a: Args) -> Value:
    only(not a["train"] or a["p"] == 0, "dropout in training mode; put the model in eval mode")
    value: Value = a["input"]
    return value


class _Layout(Op):
    arity = (1, 1)
    secure = True
    moves_data = True
    keeps_numbers = True


class Reshape(_Layout):
    """reshape(x; shape): the same elements in row-major order. Also stands for operations that change nothing."""

    name = "reshape"
    attrs = ("shape",)
    aten = {
        "aten.view.default": _view("size"),
        "aten.reshape.default": _view("shape"),
        "aten._unsafe_view.default": _view("size"),
        "aten.unsqueeze.default": _unsqueeze,
        "aten.squeeze.default": _squeeze,
        "aten.squeeze.dim": _squeeze,
        "aten.squeeze.dims": _squeeze,
        "aten.flatten.using_ints": _flatten,
        "aten.unflatten.int": _unflatten,
        "aten.clone.default": _same(),
        "aten.contiguous.default": _same(),
        "aten.alias.default": _same(),
        "aten.detach.default": _same(),
        "aten.detach_.default": _same(),
        "aten.lift_fresh_copy.default": _same(),
        "aten.lift_fresh.default": _same(),
        "aten.dropout.default": _dropout,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        shape = ints(attrs, "shape")
        if math.prod(shape) != inputs[0].elements or any(n < 0 for n in shape):
            raise fail(self.name, f"{inputs[0]} to {shape}")
        return TensorType(shape, inputs[0].dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].reshape(ints(attrs, "shape"))

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        """A dimension that is kept: of the same size, with as many elements before it."""
        shape, old = ints(attrs, "shape"), inputs[0].shape
        before = math.prod(shape[:dim])
        kept = [d for d, n in enumerate(old) if n == shape[dim] and math.prod(old[:d]) == before]
        return (kept[0],) if kept else None


class Permute(_Layout):
    """permute(x; dims): dimension i of the result is dimension dims[i] of x."""

    name = "permute"
    attrs = ("dims",)
    aten = {
        "aten.permute.default": lambda b, a: permute(b, a["self"], a["dims"]),
        "aten.transpose.int": _transpose,
        "aten.t.default": _last_two,
        "aten.mT.default": _last_two,
        "aten.numpy_T.default": lambda b, a: permute(b, a["self"], list(range(len(a["self"].shape)))[::-1]),
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        dims, shape = ints(attrs, "dims"), inputs[0].shape
        if sorted(dims) != list(range(len(shape))):
            raise fail(self.name, f"dims {dims} of {inputs[0]}")
        return TensorType(tuple(shape[d] for d in dims), inputs[0].dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].permute(ints(attrs, "dims"))

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return (ints(attrs, "dims")[dim],)


class Expand(_Layout):
    """expand(x; shape): x repeated along its dimensions of size 1, and along new leading ones."""

    name = "expand"
    attrs = ("shape",)
    aten = {
        "aten.expand.default": lambda b, a: _expand_to(b, a["self"], a["size"]),
        "aten.expand_as.default": lambda b, a: _expand_to(b, a["self"], a["other"].shape),
        "aten.broadcast_to.default": lambda b, a: _expand_to(b, a["self"], a["size"]),
        "aten.repeat.default": _repeat,
        "aten.repeat_interleave.self_int": _repeat_interleave,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        shape = ints(attrs, "shape")
        if broadcast(self.name, inputs[0].shape, shape) != shape:
            raise fail(self.name, f"{inputs[0]} to {shape}")
        return TensorType(shape, inputs[0].dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return inputs[0].expand(ints(attrs, "shape"))

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return (aligned(inputs[0], len(ints(attrs, "shape")), dim),)


class Slice(_Layout):
    """slice(x; dim, start, stop, step) = x[..., start:stop:step, ...] with 0 <= start <= stop <= size."""

    name = "slice"
    attrs = ("dim", "start", "stop", "step")
    aten = {
        "aten.slice.Tensor": _slice,
        "aten.select.int": _select,
        "aten.narrow.default": _narrow,
        "aten.unbind.int": _unbind,
        "aten.split.Tensor": _split,
        "aten.split_with_sizes.default": _split_sizes,
        "aten.chunk.default": _chunk,
    }

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        x = inputs[0]
        dim, start, stop, step = (integer(attrs, k) for k in self.attrs)
        if not (0 <= dim < len(x.shape) and 0 <= start <= stop <= x.shape[dim] and step >= 1):
            raise fail(self.name, f"[{start}:{stop}:{step}] along {dim} of {x}")
        return TensorType((*x.shape[:dim], len(range(start, stop, step)), *x.shape[dim + 1 :]), x.dtype)

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        dim, start, stop, step = (integer(attrs, k) for k in self.attrs)
        return inputs[0][(slice(None),) * dim + (slice(start, stop, step),)]

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return None if dim == integer(attrs, "dim") else (dim,)


class Concat(_Layout):
    """concat(x, ...; dim): the inputs one after the other along `dim`."""

    name = "concat"
    arity = (1, 1 << 16)
    attrs = ("dim",)
    aten = {"aten.cat.default": _cat, "aten.stack.default": _stack}

    def infer(self, inputs: Types, attrs: Attrs) -> TensorType:
        dim, first = integer(attrs, "dim"), inputs[0]
        if not 0 <= dim < len(first.shape):
            raise fail(self.name, f"dim {dim} of {first}")
        rests = {(*t.shape[:dim], *t.shape[dim + 1 :]) for t in inputs}
        if len(rests) != 1 or len({len(t.shape) for t in inputs}) != 1:
            raise fail(self.name, f"{', '.join(map(str, inputs))} along {dim}")
        total = sum(t.shape[dim] for t in inputs)
        return TensorType((*first.shape[:dim], total, *first.shape[dim + 1 :]), promote(*(t.dtype for t in inputs)))

    def reference(self, inputs: Tensors, attrs: Attrs) -> torch.Tensor:
        return torch.cat(list(inputs), integer(attrs, "dim"))

    def follows(self, inputs: Types, attrs: Attrs, dim: int) -> Sources | None:
        return None if dim == integer(attrs, "dim") else (dim,) * len(inputs)


OPS: tuple[Op, ...] = (Reshape(), Permute(), Expand(), Slice(), Concat())
