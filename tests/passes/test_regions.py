"""Who computes what: visibility, private look-ups, masks, and the cheapest boundary."""

from __future__ import annotations

import pytest
import torch
from small_graphs import Maker, stack

from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.visibility import infer, meet, why
from mpcc.passes.graph.cut import cut
from mpcc.passes.graph.prepare_masks import prepare_masks
from mpcc.passes.graph.private_embedding import private_embedding

PUBLIC_FIRST = {f"model.layer.0.{part}": "public" for part in ("up", "bias", "down")}


@pytest.mark.parametrize(
    ("operands", "result"),
    [
        ([], "public"),
        (["public", "public"], "public"),
        (["public", "client"], "client"),
        (["provider", "provider"], "provider"),
        (["client", "provider"], "secret"),
        (["secret", "public"], "secret"),
    ],
)
def test_the_result_is_for_those_who_may_read_all_operands(operands, result):
    assert meet(operands) == result


def test_weights_are_private_unless_shown_public():
    graph = infer(stack(2)[0], {})
    assert {n.visibility for n in graph if n.op == "param"} == {"provider"}
    assert {n.site for n in graph if not n.is_leaf} == {"mpc"}


def test_a_frozen_prefix_is_the_clients():
    graph = infer(stack(3)[0], PUBLIC_FIRST)
    sites = {n.name: n.site for n in graph if not n.is_leaf}
    assert {name for name, site in sites.items() if site == "client"} == {"l0_up", "l0_gelu", "l0_down", "l0_out"}
    regions = cut(graph)
    assert [n.name for n in regions.mpc if n.op == "input"] == ["l0_out"]
    assert [name for name, _ in regions.client.outputs] == ["l0_out"]
    read = {n.attr("tensor") for n in regions.client if n.op == "param"}
    assert read == set(PUBLIC_FIRST), "no private weight in the client's part"


def test_lora_branches_meet_the_frozen_product_inside():
    graph, tensors = stack(2, lora=(0,))
    public = {name: "public" for name in tensors if "lora" not in name and "head" not in name}
    graph = infer(graph, public)
    # the frozen product and everything before the first private weight stay with the client
    assert graph["l0_up"].site == "client" and graph["l0_a"].site == "mpc"
    assert graph["l0_sum"].visibility == "secret" and graph["l1_up"].site == "mpc"
    assert {n.name for n in cut(graph).mpc if n.op == "input"} == {"x", "l0_up"}


def test_why_names_the_weight_and_its_evidence():
    graph = infer(stack(2)[0], PUBLIC_FIRST)
    text = "\n".join(why(graph, "l1_gelu", {"model.layer.1.up": "differs from the base"}))
    assert "model.layer.1.up (differs from the base)" in text and "the client's input x" in text


def recombined(regions, tensors, inputs):
    """The client's graph, then the MPC region on what it shares."""
    shared = run_graph(regions.client, inputs, tensors)
    return outputs_of(regions.mpc, run_graph(regions.mpc, shared, tensors))


@pytest.mark.parametrize("public", [{}, PUBLIC_FIRST], ids=["all private", "frozen prefix"])
def test_the_regions_together_are_the_graph(public):
    graph, tensors = stack(3)
    inputs = {"x": torch.randn(3, 4)}
    want = outputs_of(graph, run_graph(graph, inputs, tensors))
    torch.testing.assert_close(recombined(cut(infer(graph, public)), tensors, inputs), want)


def expanded(role="client"):
    """A small value of the client's is expanded before it meets a weight."""
    m = Maker()
    x = m.input("x", (2, 1, 4), role=role)
    small = m.op("small", "gelu", x, approximate="none")
    wide = m.op("wide", "expand", small, shape=(2, 50, 4))
    return m.graph(y=m.op("y", "mul", wide, m.param("w", 50, 4))), m.tensors


def test_the_cut_shares_the_small_value_before_an_expansion():
    regions = cut(infer(expanded()[0], {}))
    assert [n.name for n in regions.mpc if n.op == "input"] == ["small"]
    assert "wide" in {n.name for n in regions.mpc}


def test_the_cut_shares_the_smaller_slice():
    m = Maker()
    x = m.input("x", (100, 4))
    piece = m.op("piece", "slice", x, dim=0, start=0, stop=2, step=1)
    graph = infer(m.graph(y=m.op("y", "mul", piece, m.param("w", 4))), {})
    assert [n.name for n in cut(graph).mpc if n.op == "input"] == ["piece"]


def test_ties_leave_work_with_its_owner():
    m = Maker()
    turned = m.op("turned", "permute", m.input("x", (3, 4)), dims=(1, 0))
    graph = infer(m.graph(y=m.op("y", "mul", turned, m.param("w", 4, 3))), {})
    assert [n.name for n in cut(graph).mpc if n.op == "input"] == ["turned"]


def test_public_values_are_public_inputs():
    (given,) = (n for n in cut(infer(expanded("public")[0], {"w": "provider"})).mpc if n.op == "input")
    assert given.attr("role") == "public"


@pytest.mark.parametrize(
    ("element", "op", "attrs", "whole"),
    [
        ("i64", "cast", {"dtype": "f32"}, True),
        ("f64", "cast", {"dtype": "f32"}, False),
        ("f32", "cast", {"dtype": "f64"}, False),
        ("i64", "one_hot", {"classes": 4}, True),
        ("f32", "gelu", {"approximate": "none"}, False),
    ],
)
def test_only_whole_numbers_are_shared_at_scale_zero(element, op, attrs, whole):
    m = Maker()
    value = m.op("value", op, m.input("x", (3, 4), element), **attrs)
    graph = infer(m.graph(y=m.op("y", "mul", value, m.param("w", 4))), {})
    (given,) = (n for n in cut(graph).mpc if n.op == "input")
    assert (given.name, given.attr("whole")) == ("value", whole)


def lookup(ids_role="client"):
    m = Maker()
    ids = m.input("ids", (2, 3), "i64", ids_role)
    return m.graph(y=m.op("y", "embedding", m.param("table", 10, 4), ids)), m.tensors


def test_a_private_table_is_read_by_a_one_hot_product():
    graph, tensors = lookup()
    rewritten = infer(private_embedding(infer(graph, {})), {})
    assert [n.op for n in rewritten if not n.is_leaf] == ["one_hot", "reshape", "matmul", "reshape"]
    assert "embedding" not in {n.op for n in rewritten}
    inputs = {"ids": torch.tensor([[1, 9, 0], [3, 3, 5]])}
    torch.testing.assert_close(run_graph(rewritten, inputs, tensors)["y"], tensors["table"][inputs["ids"]])
    (given,) = (n for n in cut(rewritten).mpc if n.op == "input")
    assert given.attr("whole") and given.type.shape == (6, 10)


@pytest.mark.parametrize("role", ["client", "public"])
def test_a_public_table_is_read_by_the_client(role):
    graph = infer(lookup(role)[0], {"table": "public"})
    assert private_embedding(graph) == graph and graph["y"].site == "client"


def test_public_ids_make_a_public_one_hot_matrix():
    graph, tensors = lookup("public")
    rewritten = infer(private_embedding(infer(graph, {})), {})
    (given,) = (n for n in cut(rewritten).mpc if n.op == "input")
    assert (given.attr("role"), given.attr("whole")) == ("public", True)
    inputs = {"ids": torch.tensor([[1, 9, 0], [3, 3, 5]])}
    torch.testing.assert_close(recombined(cut(rewritten), tensors, inputs)["y"], tensors["table"][inputs["ids"]])


def test_public_input_times_private_weight_is_computed_in_mpc():
    """The provider could read it, but takes no part in clear while the program runs."""
    m = Maker()
    product = m.op("product", "mul", m.input("x", (3, 4), role="public"), m.param("w", 4))
    graph = infer(m.graph(y=product), {})
    assert (graph["product"].visibility, graph["product"].site) == ("provider", "mpc")


def attention(mask_shape, mask_type="bool", layers=1, expand=None):
    """Attention with a boolean mask that the client gives."""
    m = Maker()
    x = m.input("x", (2, 1, 5, 4))
    mask = m.input("mask", mask_shape, mask_type)
    if expand:
        mask = m.op("wide", "expand", mask, shape=expand)
    for i in range(layers):
        w = m.param(f"w{i}", 4, 4)
        q = m.op(f"q{i}", "linear", x, w)
        x = m.op(f"a{i}", "attention", q, x, x, mask, scale=0.5, mask="keep")
    return m.graph(y=x), m.tensors


def inputs_with_mask(shape):
    mask = torch.ones(shape, dtype=torch.bool)
    mask[1, ..., 3:] = False
    return {"x": torch.randn(2, 1, 5, 4), "mask": mask}


@pytest.mark.parametrize("expand", [None, (2, 1, 5, 5)], ids=["as it is", "expanded over queries"])
def test_padding_masks_become_two_vectors(expand):
    graph, tensors = attention((2, 1, 1, 5), expand=expand, layers=2)
    prepared = prepare_masks(graph, {})
    kinds = [(n.attr("mask"), len(n.inputs)) for n in prepared if n.op == "attention"]
    assert kinds == [("key", 5)] * 2
    made = [n.op for n in prepared if n.op in ("reshape", "cast", "first_kept")]
    assert made == ["reshape", "cast", "first_kept"], "once for all layers"
    inputs = inputs_with_mask((2, 1, 1, 5))
    torch.testing.assert_close(run_graph(prepared, inputs, tensors)["a1"], run_graph(graph, inputs, tensors)["a1"])


def test_the_cut_shares_two_vectors_instead_of_the_mask():
    graph, _ = attention((2, 1, 1, 5), expand=(2, 1, 5, 5))
    regions = cut(infer(prepare_masks(graph, {}), {}))
    shapes = {n.name: n.type.shape for n in regions.mpc if n.op == "input"}
    assert sorted(shapes.values()) == [(2, 1, 5, 4), (2, 5), (2, 5)]
    assert all(n.attr("whole") for n in regions.mpc if n.op == "input" and n.type.shape == (2, 5))


def test_masks_that_differ_between_queries_are_left_alone():
    graph, _ = attention((2, 1, 5, 5))
    assert prepare_masks(graph, {}) == graph
