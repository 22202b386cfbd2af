"""A captured graph computes what the model computes, and what is known of its tensors is right."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from harness import canonicalise
from peft import LoraConfig, get_peft_model
from torch import nn

from mpcc.compiler.errors import MpccError, UnsupportedError
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.ops import REGISTRY
from mpcc.passes.graph.check_secure import check_secure
from tests.frontend.conftest import batch, tiny

MODELS = [
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "DistilBertForSequenceClassification",
    "DistilBertModel",
]


def values(graph, inputs, tensors, dtype=torch.float32):
    return outputs_of(graph, run_graph(graph, inputs, tensors, dtype=dtype))


def assert_same(graph, tensors, model, inputs, tolerance=1e-5):
    with torch.no_grad():
        expected = model(**inputs)
    got = values(graph, inputs, tensors)
    assert set(got) == {k for k in expected if expected[k] is not None}
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


@cache
def captured_once(name, attention, length):
    model = tiny(name, attention)
    return model, capture(model, batch(length))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_the_model_computes(name, attention):
    for length, padding in ((6, 2), (9, 0))[: 2 if name.startswith("Bert") else 1]:
        model, captured = captured_once(name, attention, length)
        graph, tensors = canonicalise(captured.graph, captured.tensors)
        for inputs in (batch(length, padding), batch(length, 1)):
            assert_same(captured.graph, captured.tensors, model, inputs)
            assert_same(graph, tensors, model, inputs)
        double = values(graph, batch(length), tensors, torch.float64)
        assert all(v.dtype == torch.float64 for v in double.values())
        assert parse_graph(print_graph(captured.graph)) == captured.graph
        assert parse_graph(print_graph(graph)) == graph


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_mask_ends_as_an_expanded_row(name, attention):
    _, captured = captured_once(name, attention, 6)
    graph, _ = canonicalise(captured.graph, captured.tensors)
    fused = [n for n in graph.nodes if n.op == "attention"]
    assert len(fused) == 2
    for node in fused:
        assert node.attr("mask") == "keep"
        mask = graph[node.inputs[3]]
        mask = graph[mask.inputs[0]] if mask.op == "expand" else mask
        assert mask.type.shape == (2, 1, 1, 6) and mask.type.dtype == "bool"
    assert not any(n.op in ("softmax", "aten.index.Tensor") for n in graph.nodes)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_lora(attention):
    base = tiny("BertForSequenceClassification", attention)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model.train()
    captured = capture(model, batch(6))
    assert all(m.training for m in model.modules() if type(m) is nn.Linear)
    model.eval()
    assert_same(captured.graph, captured.tensors, model, batch(6, 2))
    peft = captured.peft
    assert peft is not None and peft.adapter == "default"
    assert len(peft.lora_a) == len(peft.lora_b) == 4 and len(peft.base_layer) == 8
    assert len(peft.modules_to_save) == 2
    assert not any("original_module" in name for name in captured.tensors)
    trained = {n for n, t in captured.trainable.items() if t}
    assert trained == {*peft.lora_a, *peft.lora_b, *peft.modules_to_save}
    assert captured.architecture == "BertForSequenceClassification"


def test_no_mask_given():
    model = tiny("BertForSequenceClassification")
    inputs = {"input_ids": batch(6)["input_ids"]}
    captured = capture(model, inputs)
    graph, tensors = canonicalise(captured.graph, captured.tensors)
    assert_same(graph, tensors, model, inputs)
    assert {n.attr("mask") for n in graph.nodes if n.op == "attention"} == {"none"}


def test_equal_example_tensors_stay_two_inputs():
    """torch.export takes one tensor given twice for one input."""
    ones = torch.ones(2, 6, dtype=torch.int64)
    captured = capture(tiny("BertModel"), {"input_ids": ones, "attention_mask": ones})
    users = captured.graph.users()
    assert users["input_ids"] and users["attention_mask"]


def test_example_inputs_are_made_from_a_length():
    captured = capture(tiny("BertModel"), sequence_length=7, token_type_ids=True)
    shapes = {n.name: n.type.shape for n in captured.graph.nodes if n.op == "input"}
    assert shapes == dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 7))
    assert all(n.attr("role") == "client" for n in captured.graph.nodes if n.op == "input")


def test_integers_of_the_architecture_are_constants_and_weights_are_not():
    captured = capture(tiny("BertModel"), sequence_length=4)
    constants = {n.attr("tensor") for n in captured.graph.nodes if n.op == "constant"}
    assert {c for c in constants if not c.startswith("const.")} == {
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    }
    assert captured.kinds["embeddings.position_ids"] == "non_persistent_buffer"


class Hidden(nn.Module):
    """Keeps a weight where nobody looks: as a plain attribute and as a buffer."""

    def __init__(self):
        super().__init__()
        self.plain = torch.randn(4)
        self.register_buffer("held", torch.randn(4))
        self.register_buffer("loose", torch.randn(4), persistent=False)
        self.factor = torch.tensor(0.5)

    def forward(self, x):
        return (x * self.plain + self.held) * self.loose * self.factor


def test_hidden_weights_are_params():
    captured = capture(Hidden(), {"x": torch.zeros(2, 4)})
    params = {n.attr("tensor") for n in captured.graph.nodes if n.op == "param"}
    assert params == {"plain", "held", "loose", "factor"}
    assert sorted(captured.kinds[str(p)] for p in params) == ["buffer", "literal", "literal", "non_persistent_buffer"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight
        self.unused = nn.Linear(3, 3)

    def forward(self, ids):
        return {"scores": self.head(self.table(ids)), "hidden_states": self.table(ids)}


def test_tied_weights_are_one_tensor_and_unused_ones_are_gone():
    ids = torch.tensor([[1, 2, 3]])
    model = Tied()
    captured = capture(model, {"ids": ids})
    assert set(captured.tensors) == {"table.weight"}
    assert captured.aliases == {"head.weight": "table.weight"}
    assert [name for name, _ in captured.graph.outputs] == ["scores"]
    torch.testing.assert_close(values(captured.graph, {"ids": ids}, captured.tensors)["scores"], model(ids)["scores"])


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 2, 3)
        self.second = nn.Bilinear(2, 2, 2)

    def forward(self, x):
        y = torch.fft.fft(self.first(x)).real
        return torch.linalg.inv(y[:, :, :2]) + torch.erfinv(x[:, :, :2]) + torch.erfinv(x[:, :, 1:3])


def test_all_unsupported_operations_are_in_one_error():
    with pytest.raises(UnsupportedError) as error:
        capture(Odd(), {"x": torch.rand(1, 2, 6)})
    text = str(error.value)
    for part in ("aten.conv1d.default x1", "aten.erfinv.default x2", "fft", "linalg_inv", "first", "test_capture.py:"):
        assert part in text
    assert "/" not in text.replace("and/or", "")


def test_operations_without_a_secure_form_are_refused_where_they_are_secret():
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.maximum(x, x.cos()) + (x > 0)

    captured = capture(Sorted(), {"x": torch.rand(2, 3)})
    check_secure(captured.graph)
    from dataclasses import replace

    secret = captured.graph.with_nodes([n if n.is_leaf else replace(n, site="mpc") for n in captured.graph.nodes])
    with pytest.raises(UnsupportedError) as error:
        check_secure(secret)
    for part in ("aten.cos.default", "aten.maximum.default", "gt", "test_capture.py:"):
        assert part in str(error.value)


def test_branching_on_values_is_one_clear_error():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(MpccError, match="cannot export"):
        capture(Branch(), {"x": torch.rand(2)})


def test_unknown_input_names_and_missing_shapes():
    model = tiny("BertModel")
    with pytest.raises(MpccError, match="no input input_idz"):
        capture(model, {"input_idz": torch.zeros(1, 4)})
    with pytest.raises(MpccError, match="sequence_length"):
        capture(model)


def test_half_precision_is_widened():
    model = nn.Linear(3, 2).to(torch.bfloat16)
    captured = capture(model, {"input": torch.zeros(1, 3, dtype=torch.bfloat16)})
    assert all(t.dtype == torch.float32 for t in captured.tensors.values())


def test_every_node_is_of_the_registry_and_knows_where_it_is_from():
    captured = capture(tiny("BertForSequenceClassification"), batch(5))
    for node in captured.graph.operations():
        assert node.op in REGISTRY
        assert node.origin.source.partition(":")[0].endswith(".py")
    layers = {n.origin.layer for n in captured.graph.operations()}
    assert "bert.encoder.layer.1.attention.self.query" in layers
