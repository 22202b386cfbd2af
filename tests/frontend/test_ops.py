"""Every operation of the registry: its reference against PyTorch, its shape rule against its reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ops import ATEN, REGISTRY
from mpcc.compiler.ops.base import from_torch
from mpcc.compiler.types import TensorType

G = torch.Generator().manual_seed(7)


def r(*shape):
    return torch.randn(*shape, generator=G)


def pos(*shape):
    return torch.rand(*shape, generator=G) + 0.1


def ids(*shape, high=5):
    return torch.randint(0, high, shape, generator=G)


def bits(*shape):
    return torch.rand(*shape, generator=G) > 0.4


def attended(q, k, v, scale, bias=0.0):
    return torch.softmax(scale * q @ k.transpose(-1, -2) + bias, -1) @ v


def keep_bias(mask):
    return torch.where(mask, 0.0, -math.inf)


ROW = bits(2, 1, 1, 5)
ROW[..., 0] = True
FULL = torch.ones(4, 5, dtype=torch.bool).tril(1)
ANCHOR = torch.zeros(2, 5)
X, Y, Z = r(2, 3, 4), r(4), r(3, 1)

# op -> cases of (inputs, attrs, what PyTorch says)
CASES = {
    "linear": [
        ([X, w := r(5, 4)], {}, X @ w.T),
        ([X, w, b := r(5)], {}, X @ w.T + b),
        ([Y, w], {}, w @ Y),
    ],
    "linear_diagonal": [
        (
            [X, q4 := r(2, 3, 6), v := r(6, 6), d := r(6)],
            {"block": 2},
            X @ v[:, :4].T + q4 @ torch.block_diag(*v[:, 4:].reshape(3, 2, 2)).T + d,
        ),
        ([X, q4, v[:, :5]], {"block": 1}, X @ v[:, :4].T + q4 * v[:, 4]),
    ],
    "matmul": [
        ([X, m := r(4, 2)], {}, X @ m),
        ([q := r(2, 1, 3, 4), k := r(5, 4, 2)], {}, q @ k),
    ],
    "add": [([X, Y], {}, X + Y), ([X, Z], {}, X + Z), ([i := ids(2, 3), i], {}, i + i), ([i, Z[0]], {}, i + Z[0])],
    "sub": [([X, Y], {}, X - Y), ([Z, X], {}, Z - X)],
    "mul": [([X, Y], {}, X * Y), ([bits(3, 1) * X, X], {}, None)],
    "div": [([X, p := pos(4)], {}, X / p), ([i, ids(3) + 1], {}, None)],
    "scale": [
        ([X], {"factor": 0.35355339059327373}, X * 0.35355339059327373),
        ([i], {"factor": 2}, i * 2),
        ([i], {"factor": 0.5}, i * 0.5),
        ([bits(3)], {"factor": -1}, None),
    ],
    "shift": [([X], {"offset": -1.5}, X - 1.5), ([i], {"offset": 3}, i + 3)],
    "square": [([X], {}, X * X), ([i], {}, i * i)],
    "where": [([c := bits(3, 4), X, torch.tensor(0.0)], {}, torch.where(c, X, 0.0))],
    "cast": [([i], {"dtype": "f32"}, i.float()), ([X], {"dtype": "bool"}, X != 0), ([c], {"dtype": "i64"}, c.long())],
    "gelu": [
        ([X], {"approximate": "none"}, X * 0.5 * (1 + torch.erf(X / math.sqrt(2)))),
        ([X], {"approximate": "tanh"}, F.gelu(X, approximate="tanh")),
    ],
    "tanh": [([X], {}, torch.tanh(X))],
    "sigmoid": [([X], {}, 1 / (1 + torch.exp(-X)))],
    "silu": [([X], {}, X / (1 + torch.exp(-X)))],
    "relu": [([X], {}, X.clamp(min=0)), ([i], {}, i)],
    "exp": [([X], {}, torch.exp(X)), ([i], {}, torch.exp(i))],
    "reciprocal": [([p], {}, 1 / p)],
    "rsqrt": [([p], {}, p**-0.5)],
    "sqrt": [([p], {}, p**0.5)],
    "softmax": [([X], {"dim": 2}, F.softmax(X, -1)), ([X], {"dim": 0}, F.softmax(X, 0))],
    "layer_norm": [
        ([X], {"eps": 1e-12, "affine": "none"}, F.layer_norm(X, (4,), eps=1e-12)),
        ([X, Y], {"eps": 1e-5, "affine": "gamma"}, F.layer_norm(X, (4,), Y)),
        ([X, Y, b4 := r(4)], {"eps": 1e-5, "affine": "gamma_beta"}, F.layer_norm(X, (4,), Y, b4)),
    ],
    "rms_norm": [
        ([X], {"eps": 1e-6, "gain": 1.0}, X * (X.square().mean(-1, keepdim=True) + 1e-6).rsqrt()),
        ([X, Y], {"eps": 1e-6, "gain": 0.5}, X * (X.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * Y * 0.5),
    ],
    "attention": [
        (
            [q := r(2, 3, 4, 6), k := r(2, 3, 5, 6), v := r(2, 3, 5, 7)],
            {"scale": 0.3, "mask": "none"},
            attended(q, k, v, 0.3),
        ),
        ([q, k, v, ROW], {"scale": 0.3, "mask": "keep"}, attended(q, k, v, 0.3, keep_bias(ROW))),
        ([q, k, v, FULL], {"scale": 0.5, "mask": "keep"}, attended(q, k, v, 0.5, keep_bias(FULL))),
        ([q, k, v, a := r(1, 1, 4, 5)], {"scale": 0.5, "mask": "additive"}, attended(q, k, v, 0.5, a)),
        (
            [q, k, v, ROW.reshape(2, 5).float(), ANCHOR],
            {"scale": 0.3, "mask": "key"},
            attended(q, k, v, 0.3, keep_bias(ROW)),
        ),
    ],
    "reshape": [([X], {"shape": (6, 4)}, X.view(6, 4)), ([X[:1, :1, :1]], {"shape": ()}, X[0, 0, 0])],
    "permute": [([X], {"dims": (2, 0, 1)}, X.permute(2, 0, 1))],
    "expand": [([Z], {"shape": (2, 3, 4)}, Z.expand(2, 3, 4)), ([c[:, :1]], {"shape": (3, 4)}, c[:, :1].expand(3, 4))],
    "slice": [
        ([X], {"dim": 2, "start": 1, "stop": 4, "step": 2}, X[..., 1:4:2]),
        ([X], {"dim": 0, "start": 2, "stop": 2, "step": 1}, X[2:2]),
    ],
    "concat": [([X, X], {"dim": 1}, torch.cat([X, X], 1)), ([X], {"dim": 0}, X)],
    "sum": [
        ([X], {"dims": (1,), "keepdim": True}, X.sum(1, True)),
        ([i], {"dims": (0, 1), "keepdim": False}, i.sum()),
        ([c], {"dims": (0,), "keepdim": False}, c.sum(0)),
        ([X], {"dims": (), "keepdim": False}, X),
    ],
    "mean": [
        ([X], {"dims": (0, 2), "keepdim": False}, X.mean((0, 2))),
        ([X], {"dims": (2,), "keepdim": True}, X.mean(2, True)),
    ],
    "cumsum": [([i], {"dim": 1}, i.cumsum(1)), ([X], {"dim": 0}, X.cumsum(0)), ([c], {"dim": 1}, c.cumsum(1))],
    "embedding": [([t := r(5, 3), i], {}, t[i]), ([t, torch.tensor(2)], {}, t[2])],
    "one_hot": [([i], {"classes": 5}, F.one_hot(i, 5).float())],
    "eq": [([i, ids(3)], {}, None), ([X, X], {}, X == X)],
    "ne": [([i, torch.tensor(1)], {}, i != 1)],
    "ge": [([X, Y], {}, X >= Y)],
    "gt": [([X, Y], {}, X > Y)],
    "le": [([X, Y], {}, X <= Y)],
    "lt": [([X, Y], {}, X < Y)],
    "first_kept": [([torch.tensor([[0.0, 1, 1], [0, 0, 0]])], {}, torch.tensor([[0.0, 1, 0], [0, 0, 0]]))],
    "logical_and": [([c, d := bits(4)], {}, c & d)],
    "logical_or": [([c, d], {}, c | d)],
    "logical_not": [([c], {}, ~c)],
}

A, B = torch.ops.aten, ids(3, 4, high=9)
M = r(3, 4)
SIZE = {"dtype": None}
# clear-only op -> arguments of the ATen call in order
CLEAR = {
    "arange.default": (6,),
    "arange.start": (2, 6),
    "arange.start_step": (1, 9, 2),
    "eye.default": (3,),
    "eye.m": (2, 3),
    "full.default": ((2, 3), 1.5),
    "ones.default": ((2,),),
    "zeros.default": ((2, 2),),
    "scalar_tensor.default": (2.5,),
    "full_like.default": (M, 3.0),
    "ones_like.default": (B,),
    "zeros_like.default": (M,),
    "new_full.default": (M, (2, 2), 7),
    "new_ones.default": (M, ()),
    "new_zeros.default": (M, (3,)),
    "fill.Scalar": (M, 2.0),
    "tril.default": (M, 1),
    "triu.default": (M,),
    "gather.default": (B, 1, B % 4),
    "index.Tensor": (B, [torch.tensor([[0], [2]]), torch.tensor([1, 3])]),
    "index_select.default": (M, 1, torch.tensor([2, 0])),
    "flip.default": (M, [0]),
    "roll.default": (M, [1], [1]),
    "constant_pad_nd.default": (M, [1, 2], 0.5),
    "scatter.src": (M, 0, B % 3, r(3, 4)),
    "scatter.value": (M, 0, B % 3, 2.0),
    "slice_scatter.default": (M, r(3, 2), 1, 1, 3),
    "select_scatter.default": (M, r(4), 0, 1),
    "diff.default": (B,),
    "floor_divide.default": (B, torch.tensor(2)),
    "div.Tensor_mode": (B, torch.tensor(2)),
    "remainder.Scalar": (B, 3),
    "remainder.Tensor": (B, B + 1),
    "bitwise_and.Scalar": (B, 3),
    "bitwise_xor.Tensor": (B, B + 1),
    "logical_xor.default": (B > 3, B > 5),
    "isin.Tensor_Tensor": (B, torch.tensor([1, 2])),
    "isin.Tensor_Scalar": (B, 2),
    "bucketize.Tensor": (M, torch.tensor([-1.0, 0.0, 1.0])),
    "any.default": (B > 3,),
    "any.dim": (B > 3, 1),
    "all.default": (B > 3,),
    "all.dim": (B > 3, 1),
    "argmax.default": (M, 1),
    "argmin.default": (M,),
    "isnan.default": (M,),
    "isinf.default": (M,),
    "abs.default": (M,),
    "sign.default": (M,),
    "floor.default": (M,),
    "ceil.default": (M,),
    "round.default": (M,),
    "cos.default": (M,),
    "sin.default": (M,),
    "log.default": (pos(3),),
    "log1p.default": (pos(3),),
    "erf.default": (M,),
    "maximum.default": (M, r(4)),
    "minimum.default": (M, r(4)),
    "clamp.default": (M, -0.5, 0.5),
    "clamp_min.default": (M, 0.0),
    "clamp_max.default": (M, 0.0),
    "amax.default": (M, [1]),
    "amin.default": (M, [0], True),
    "max.default": (M,),
    "min.default": (M,),
    "pow.Tensor_Tensor": (pos(3, 4), M),
    "pow.Scalar": (2.0, M),
    "linalg_vector_norm.default": (M,),
    "outer.default": (r(3), r(2)),
}
NAMED = {"div.Tensor_mode": {"rounding_mode": "floor"}, "scalar_tensor.default": {"dtype": torch.float64}}


def check(op, inputs, attrs, expected):
    declared = REGISTRY[op].type([TensorType(tuple(t.shape), from_torch(t.dtype)) for t in inputs], attrs)
    result = REGISTRY[op].reference(inputs, attrs)
    assert declared == TensorType(tuple(result.shape), from_torch(result.dtype))
    if expected is not None:
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6, check_stride=False)


def test_every_operation_has_a_case():
    assert set(CASES) | {f"aten.{name}" for name in CLEAR} == set(REGISTRY)


@pytest.mark.parametrize(("op", "number"), [(op, i) for op, cases in CASES.items() for i in range(len(cases))])
def test_reference_and_shape_rule(op, number):
    check(op, *CASES[op][number])


@pytest.mark.parametrize("name", sorted(CLEAR))
def test_clear_operations_call_what_they_name(name):
    from mpcc.compiler.frontend.translate import AtenBuilder

    packet, overload = name.split(".")
    function = getattr(getattr(A, packet), overload)
    builder, values, tensors = AtenBuilder(), {}, []

    def given(value):
        if isinstance(value, torch.Tensor):
            values[len(tensors)] = value
            tensors.append(value)
            return builder.literal(value)
        return [given(v) for v in value] if isinstance(value, (list, tuple)) else value

    schema = function._schema.arguments
    args = {a.name: a.default_value for a in schema}
    args |= {a.name: given(v) for a, v in zip(schema, CLEAR[name], strict=False)} | NAMED.get(name, {})
    value = ATEN[f"aten.{name}"](builder, args)
    node = builder.graph.nodes[value.name]
    held = {n.name: builder.literals[n.attr("tensor")] for n in builder.graph.nodes.values() if n.op == "constant"}
    result = REGISTRY[node.op].reference([held[i] for i in node.inputs], dict(node.attrs))
    expected = function(*CLEAR[name], **NAMED.get(name, {}))
    assert torch.equal(result, expected)
    assert value.type == TensorType(tuple(expected.shape), from_torch(expected.dtype))


def test_every_operation_says_what_it_computes():
    for op in REGISTRY.values():
        assert op.__doc__ and (op.name.startswith("aten.") or op.__doc__.startswith(op.name)), op.name


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [
        ("linear", [(2, 3), (4, 5)], {}),
        ("linear", [(2, 3)], {}),
        ("add", [(2, 3), (4,)], {}),
        ("reshape", [(2, 3)], {"shape": (4,)}),
        ("reshape", [(2, 3)], {"shape": "6"}),
        ("slice", [(2, 3)], {"dim": 1, "start": 2, "stop": 9, "step": 1}),
        ("softmax", [(2, 3)], {"dim": -1}),
        ("softmax", [(2, 3)], {"dim": 1, "more": 1}),
        ("attention", [(2, 3), (2, 3), (2, 3)], {"scale": 1.0, "mask": "keep"}),
        ("gelu", [(2,)], {"approximate": "sometimes"}),
        ("logical_and", [(2,), (2,)], {}),
        ("aten.roll.default", [(2,)], {"self": ("tensor", 7), "shifts": (1,), "dims": (0,)}),
    ],
)
def test_misuse_is_refused(op, shapes, attrs):
    with pytest.raises(InternalError):
        REGISTRY[op].type([TensorType(s) for s in shapes], attrs)


def test_integers_and_booleans_are_never_secure():
    op = REGISTRY["add"]
    whole, real = TensorType((2,), "i64"), TensorType((2,))
    assert op.refusal([whole, whole], whole)
    assert not op.refusal([real, real], real)
    assert REGISTRY["cast"].refusal([whole], real)
    assert REGISTRY["eq"].refusal([real, real], TensorType((2,), "bool"))
