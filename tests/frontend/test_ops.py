"""Every operation of the registry: its reference against PyTorch, its shape rule against its reference."""

from __future__ import annotations

import zlib

import pytest
import torch
from clear_cases import CLEAR, NAMED
from op_cases import CASES, numbered

from mpcc.compiler.errors import InternalError
from mpcc.compiler.ops import ATEN, REGISTRY
from mpcc.compiler.ops.base import from_torch
from mpcc.compiler.types import TensorType


def test_every_operation_has_a_case():
    assert set(CASES) | {f"aten.{name}" for name in CLEAR} == set(REGISTRY)


@pytest.mark.parametrize(("op", "number"), numbered())
def test_reference_and_shape_rule(op, number):
    torch.manual_seed(zlib.crc32(f"{op}{number}".encode()))
    case = CASES[op][number]
    inputs = case.operands()
    declared = REGISTRY[op].type([TensorType(tuple(t.shape), from_torch(t.dtype)) for t in inputs], case.attrs)
    result = REGISTRY[op].reference(inputs, case.attrs)
    assert declared == TensorType(tuple(result.shape), from_torch(result.dtype))
    if case.expected is not None:
        torch.testing.assert_close(result, case.expected(*inputs), rtol=1e-5, atol=1e-6, check_stride=False)


@pytest.mark.parametrize("name", sorted(CLEAR))
def test_clear_operations_call_what_they_name(name):
    from mpcc.compiler.frontend.translate import AtenBuilder

    packet, overload = name.split(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
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
