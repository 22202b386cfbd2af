"""What a slice reads is all that is computed, with the same values, whatever it is a slice of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import batches, compiled, secure_outputs, tiny

from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import TensorType, attributes
from mpcc.passes.graph.narrow_reads import narrow_reads


class Sketch:
    """A graph by hand: leaves with random values, operations, outputs."""

    def __init__(self):
        self.nodes, self.values = [], {}
        self.generator = torch.Generator().manual_seed(0)

    def leaf(self, name, *shape, values=None):
        value = torch.randn(shape, generator=self.generator) if values is None else values
        self.values[name] = value
        dtype = {torch.bool: "bool", torch.int64: "i64"}.get(value.dtype, "f32")
        self.nodes.append(Node(name, "input", (), attributes(role="client"), TensorType(tuple(value.shape), dtype)))
        return name

    def op(self, name, op, *inputs, **attrs):
        types = {n.name: n.type for n in self.nodes}
        result = REGISTRY[op].type([types[i] for i in inputs], attrs)
        self.nodes.append(Node(name, op, inputs, attributes(**attrs), result))
        return name

    def slice(self, name, x, dim, start, stop, step=1):
        return self.op(name, "slice", x, dim=dim, start=start, stop=stop, step=step)

    def graph(self, *outputs):
        return Graph(tuple(self.nodes), tuple((o, o) for o in outputs))

    def equal(self, graph):
        narrow = narrow_reads(graph)
        want, got = (run_graph(g, self.values, {}, dtype=torch.float64) for g in (graph, narrow))
        for (name, old), (_, new) in zip(graph.outputs, narrow.outputs, strict=True):
            torch.testing.assert_close(got[new], want[old], msg=name)
            assert narrow[new].type == graph[old].type
        return narrow


def elements(graph):
    return sum(n.type.elements for n in graph.operations())


def test_a_layer_of_which_one_token_is_read():
    s = Sketch()
    s.leaf("x", 2, 6, 8), s.leaf("w", 8, 8), s.leaf("gamma", 8), s.leaf("beta", 8)
    s.op("k", "linear", "x", "w")
    heads = {
        n: s.op(f"{n}_heads", "permute", s.op(f"{n}_split", "reshape", n, shape=(2, 6, 2, 4)), dims=(0, 2, 1, 3))
        for n in ("k", "x")
    }
    s.leaf("keep", values=torch.tensor([[True] * 6, [True] * 3 + [False] * 3]))
    s.op("mask", "expand", s.op("mask_flat", "reshape", "keep", shape=(2, 1, 1, 6)), shape=(2, 1, 6, 6))
    s.op("att", "attention", heads["x"], heads["k"], heads["k"], "mask", scale=0.5, mask="keep")
    s.op("joined", "reshape", s.op("back", "permute", "att", dims=(0, 2, 1, 3)), shape=(2, 6, 8))
    s.op("sum", "add", s.op("projected", "linear", "joined", "w", "beta"), "x")
    s.op("y", "layer_norm", "sum", "gamma", "beta", eps=1e-5, affine="gamma_beta")
    s.op("first", "reshape", s.slice("cls", "y", 1, 0, 1), shape=(2, 8))
    narrow = s.equal(s.graph("first"))
    assert narrow["y"].type.shape == narrow["projected"].type.shape == (2, 1, 8)
    assert narrow["att"].type.shape == (2, 2, 1, 4)
    assert narrow["k"].type.shape == (2, 6, 8)  # every token is a key
    assert "cls" not in narrow


def test_what_is_read_whole_somewhere_stays_whole():
    s = Sketch()
    s.leaf("x", 3, 4)
    s.op("y", "gelu", "x", approximate="none")
    s.slice("part", "y", 0, 0, 1)
    graph = s.graph("part", "y")
    assert s.equal(graph) == graph


def test_readers_that_agree_in_one_dimension_narrow_that_one():
    s = Sketch()
    s.leaf("x", 4, 5, 6)
    s.op("y", "tanh", "x")
    s.slice("a", s.slice("rows", "y", 0, 1, 3), 1, 0, 2)
    s.slice("b", "rows", 1, 2, 5)
    narrow = s.equal(s.graph("a", "b"))
    assert narrow["y"].type.shape == (2, 5, 6)
    assert narrow["a"].op == narrow["b"].op == "slice"


def test_slices_of_slices_are_one():
    s = Sketch()
    s.leaf("x", 11)
    s.slice("b", s.slice("a", s.op("y", "square", "x"), 0, 1, 11, 3), 0, 1, 4, 2)
    narrow = s.equal(s.graph("b"))
    assert [n.op for n in narrow.operations()] == ["slice", "square"]


def test_a_dimension_that_is_mixed_is_cut_afterwards():
    s = Sketch()
    s.leaf("x", 3, 4)
    s.slice("a", s.op("y", "softmax", "x", dim=1), 1, 0, 2)
    s.slice("b", s.op("z", "sum", "x", dims=(1,), keepdim=True), 0, 0, 1)
    narrow = s.equal(s.graph("a", "b"))
    assert narrow["y"].type.shape == (3, 4) and narrow["z"].type.shape == (1, 1)


# op -> (shapes of its inputs, attributes); every dimension of the result is cut in turn
CASES = {
    "add": ([(2, 3, 4), (3, 1)], {}),
    "where": ([(3, 1), (2, 3, 4), (4,)], {}),
    "scale": ([(2, 3)], {"factor": 2.0}),
    "gelu": ([(2, 3)], {"approximate": "tanh"}),
    "linear": ([(2, 3, 4), (5, 4), (5,)], {}),
    "linear_diagonal": ([(2, 3, 5), (2, 3, 4), (4, 7), (4,)], {"block": 2}),
    "matmul": ([(2, 1, 3, 4), (5, 4, 6)], {}),
    "softmax": ([(2, 3, 4)], {"dim": 1}),
    "layer_norm": ([(2, 3, 4), (4,)], {"eps": 1e-5, "affine": "gamma"}),
    "rms_norm": ([(2, 3, 4)], {"eps": 1e-5, "gain": 2.0}),
    "reshape": ([(2, 12, 5)], {"shape": (2, 3, 4, 5)}),
    "permute": ([(2, 3, 4)], {"dims": (2, 0, 1)}),
    "expand": ([(3, 1)], {"shape": (2, 3, 4)}),
    "concat": ([(2, 3), (2, 4)], {"dim": 1}),
    "mean": ([(2, 3, 4)], {"dims": (1,), "keepdim": False}),
    "sum": ([(2, 3, 4)], {"dims": (0, 2), "keepdim": True}),
    "embedding": ([(7, 4), (2, 3)], {}),
    "attention": ([(2, 1, 3, 4), (2, 5, 6, 4), (2, 5, 6, 8), (2, 6), (2, 6)], {"scale": 0.5, "mask": "key"}),
}


@pytest.mark.parametrize("op", CASES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_operation_behind_a_slice(op, data):
    s = Sketch()
    shapes, attrs = CASES[op]
    for i, shape in enumerate(shapes):
        value = None
        if (op, i) == ("where", 0) or (op == "attention" and i > 2):
            value = torch.rand(shape, generator=s.generator) > 0.3
            value = value if op == "where" else (value | (torch.arange(6) == 0)).float()
        elif (op, i) == ("embedding", 1):
            value = torch.randint(0, 7, shape, generator=s.generator)
        s.leaf(f"x{i}", *shape, values=value)
    s.op("y", op, *(f"x{i}" for i in range(len(shapes))), **attrs)
    last = "y"
    for dim, size in enumerate(s.nodes[-1].type.shape):
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        last = s.slice(f"cut{dim}", last, dim, start, stop, data.draw(st.integers(1, 2)))
    graph = s.graph(last)
    assert s.equal(graph)["y"].type.elements <= graph["y"].type.elements


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["BertForSequenceClassification", "RobertaForSequenceClassification", "DistilBertForSequenceClassification"]
)
def test_the_last_layer_of_a_classifier_is_one_token_wide(name):
    model, inputs = tiny(name, layers=3), batches(6)
    program = compiled(model, inputs)
    gelus = [n.type.shape[1] for n in program.regions.mpc if n.op == "gelu"]
    assert gelus == [6, 6, 1]
    for x in inputs:
        with torch.no_grad():
            want = model(**x).logits
        got = torch.from_numpy(secure_outputs(program, x, "nearest")["logits"]).reshape(want.shape)
        torch.testing.assert_close(got, want.double(), atol=0.02, rtol=0)


def test_token_classification_needs_every_token():
    program = compiled(tiny("BertForTokenClassification"), batches(6))
    assert [n.type.shape[1] for n in program.regions.mpc if n.op == "gelu"] == [6, 6]
