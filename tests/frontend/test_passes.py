"""The interpreter on loops, and the passes on graphs written as text."""

from __future__ import annotations

import pytest
import torch
from harness import canonicalise

from mpcc.compiler.errors import InputError, InternalError
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.text import parse_graph
from mpcc.passes.graph.fold_constants import fold_constants
from mpcc.passes.graph.fuse_attention import fuse_attention
from mpcc.passes.graph.simplify import simplify

LOOP = """graph {
  %x = input {role="client"} : f32[2]
  %s = param {tensor="s"} : f32[2]
  %w0 = param {tensor="w0"} : f32[2]
  %w1 = param {tensor="w1"} : f32[2]
  %w2 = param {tensor="w2"} : f32[2]
  %v0 = param {tensor="w2"} : f32[2]
  %v1 = param {tensor="w1"} : f32[2]
  %v2 = param {tensor="w0"} : f32[2]
  %r = repeat(%x, %s, %s, %w0, %w1, %w2, %v0, %v1, %v2) {carried=2, count=3, invariants=1} : f32[2] body {
    %a = arg {index=0, kind="carried"} : f32[2]
    %b = arg {index=1, kind="carried"} : f32[2]
    %c = arg {index=0, kind="invariant"} : f32[2]
    %w = arg {index=0, kind="stacked"} : f32[2]
    %v = arg {index=1, kind="stacked"} : f32[2]
    %p = mul(%a, %w) : f32[2] members=("first", "second", "third")
    %q = add(%b, %v) : f32[2]
    %d = add(%p, %c) : f32[2]
    return "a" = %d, "b" = %q
  }
  %y = take(%r) {index=0} : f32[2]
  %z = take(%r) {index=1} : f32[2]
  return "y" = %y, "z" = %z
}
"""


def tensors():
    torch.manual_seed(1)
    return {name: torch.randn(2) for name in ("s", "w0", "w1", "w2")}


def test_repeat():
    graph, store, x = parse_graph(LOOP), tensors(), torch.tensor([1.0, 2.0])
    a, b = x, store["s"]
    products = []
    for w, v in (("w0", "w2"), ("w1", "w1"), ("w2", "w0")):
        products.append(a * store[w])
        a, b = products[-1] + store["s"], b + store[v]
    got = run_graph(graph, {"x": x}, store, keep={"y", "z", "second", "r.2.p"})
    torch.testing.assert_close(got, {"y": a, "z": b, "second": products[1], "r.2.p": products[2]})


def test_errors_name_what_is_wrong():
    graph = parse_graph(LOOP)
    with pytest.raises(InputError, match="no input 'x'"):
        run_graph(graph, {}, tensors())
    with pytest.raises(InputError, match="shape"):
        run_graph(graph, {"x": torch.zeros(3)}, tensors())
    with pytest.raises(InputError, match="int64"):
        run_graph(graph, {"x": torch.zeros(2, dtype=torch.int64)}, tensors())
    with pytest.raises(InternalError, match="no tensor 's'"):
        run_graph(graph, {"x": torch.zeros(2)}, {})
    with pytest.raises(InternalError, match="do not fit its body"):
        run_graph(parse_graph(LOOP.replace("count=3", "count=4")), {"x": torch.zeros(2)}, tensors())


def test_only_allowed_functions_run():
    text = 'graph {\n  %x = aten.empty.memory_format {size=(2,)} : f32[2]\n  return "y" = %x\n}'
    with pytest.raises(InternalError, match="no operation of this name"):
        run_graph(parse_graph(text), {}, {})


def test_params_are_never_folded():
    graph = parse_graph(
        """graph {
  %w = param {tensor="w"} : f32[2]
  %c = constant {tensor="c"} : f32[2]
  %d = square(%c) : f32[2]
  %e = mul(%d, %w) : f32[2]
  return "y" = %e
}"""
    )
    folded, new = fold_constants(graph, {"w": torch.ones(2), "c": torch.tensor([1.0, 3.0])})
    assert [n.op for n in folded.nodes] == ["param", "constant", "mul"]
    assert {k: v.tolist() for k, v in new.items()} == {"const.0": [1.0, 9.0]}


SCORES = """graph {
  %q = input {role="client"} : f32[2,3,4,6]
  %k = input {role="client"} : f32[2,3,4,6]
  %v = input {role="client"} : f32[2,3,4,6]
  %m = input {role="client"} : i64[2,4]
  %zero = constant {tensor="zero"} : f32[]
  %low = constant {tensor="low"} : f32[]
  %kt = permute(%k) {dims=(0, 1, 3, 2)} : f32[2,3,6,4]
  %s = matmul(%q, %kt) : f32[2,3,4,4]
  %t = scale(%s) {factor=0.5} : f32[2,3,4,4]
MASK
  %p = softmax(%u) {dim=3} : f32[2,3,4,4]
  %y = matmul(%p, %v) : f32[2,3,4,6]
  return "y" = %y
}
"""
ROW = "  %r = reshape(%m) {shape=(2, 1, 1, 4)} : i64[2,1,1,4]\n"
MASKS = {
    "nothing": "  %u = scale(%t) {factor=2.0} : f32[2,3,4,4]",
    "where": ROW
    + """  %b = cast(%r) {dtype="bool"} : bool[2,1,1,4]
  %a = where(%b, %zero, %low) : f32[2,1,1,4]
  %u = add(%a, %t) : f32[2,3,4,4]""",
    "one minus mask": ROW
    + """  %f = cast(%r) {dtype="f32"} : f32[2,1,1,4]
  %g = scale(%f) {factor=-1.0} : f32[2,1,1,4]
  %h = shift(%g) {offset=1.0} : f32[2,1,1,4]
  %a = scale(%h) {factor=-10000.0} : f32[2,1,1,4]
  %u = add(%t, %a) : f32[2,3,4,4]""",
    "masked fill": ROW
    + """  %b = eq(%r, %zero) : bool[2,1,1,4]
  %u = where(%b, %low, %t) : f32[2,3,4,4]""",
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_is_recognised(name):
    graph = parse_graph(SCORES.replace("MASK", MASKS[name]))
    store = {"zero": torch.tensor(0.0), "low": torch.tensor(-3.4e38)}
    torch.manual_seed(0)
    inputs = {n: torch.randn(2, 3, 4, 6) for n in "qkv"} | {"m": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])}
    fused, kept = canonicalise(graph, store)
    (node,) = (n for n in fused.nodes if n.op == "attention")
    assert node.attr("mask") == ("none" if name == "nothing" else "keep")
    assert not any(n.op == "softmax" for n in fused.nodes)
    want = outputs_of(graph, run_graph(graph, inputs, store))
    torch.testing.assert_close(outputs_of(fused, run_graph(fused, inputs, kept)), want, rtol=1e-5, atol=1e-5)


def test_attention_whose_weights_are_read_elsewhere_is_left_alone():
    text = SCORES.replace("MASK", MASKS["nothing"]).replace('return "y" = %y', 'return "y" = %y, "weights" = %p')
    graph = parse_graph(text)
    assert "attention" not in {n.op for n in fuse_attention(graph, {}).nodes}


def test_a_mild_mask_stays_additive():
    graph = parse_graph(SCORES.replace("MASK", MASKS["where"]))
    fused = fuse_attention(graph, {"zero": torch.tensor(0.0), "low": torch.tensor(-5.0)})
    assert [n.attr("mask") for n in fused.nodes if n.op == "attention"] == ["additive"]


def test_indices_in_another_order_are_no_broadcast():
    graph = parse_graph(
        """graph {
  %x = input {role="client"} : f32[2,3]
  %i = constant {tensor="i"} : i64[2,1]
  %j = constant {tensor="j"} : i64[3]
  %y = aten.index.Tensor(%x, %i, %j) {indices=(("tensor", 1), ("tensor", 2)), self=("tensor", 0)} : f32[2,3]
  return "y" = %y
}"""
    )
    rows, columns = torch.tensor([[0], [1]]), torch.tensor([0, 1, 2])
    same = simplify(graph, {"i": rows, "j": columns})
    assert same.outputs == (("y", "x"),)
    for i, j in ((rows.flip(0), columns), (rows, columns.flip(0)), (rows, torch.zeros(3, dtype=torch.int64))):
        assert simplify(graph, {"i": i, "j": j}) == graph
