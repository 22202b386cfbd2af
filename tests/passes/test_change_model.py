"""The functions that a user chooses take the place of the model's, inside MPC only and before ranges are known."""

from __future__ import annotations

import pytest
from small_graphs import Maker

from mpcc.compiler.errors import MpccError
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.ops import REGISTRY
from mpcc.passes.graph.change_model import CHOICES, change_model, changes_in, check_choices

BOTH = {"gelu": "quad", "softmax": "2relu"}


def labelled(mask="none", dtype="f32"):
    """Every operation that has a substitute, secret, and a gelu that its owner computes."""
    m = Maker()
    x = m.input("x", (2, 4, 6))
    own = m.op("own", "gelu", x, approximate="none")
    y = m.op("dense", "linear", own, m.param("weight", 6, 6))
    operands = [y, y, y] + ([m.input("m", (2, 4, 4), dtype)] if mask != "none" else [])
    z = m.op("heads", "attention", *operands, layer="model.attention", scale=0.5, mask=mask)
    z = m.op("rows", "softmax", z, dim=2)
    return infer(m.graph(y=m.op("act", "gelu", z, approximate="tanh")), {"weight": "provider"})


def test_what_is_chosen_is_replaced_inside_mpc_only():
    graph = labelled()
    changed = change_model(graph, BOTH)
    assert {n.name: n.op for n in changed.operations()} == {
        "own": "gelu",
        "dense": "linear",
        "heads": "attention_2relu",
        "rows": "softmax_2relu",
        "act": "gelu_quad",
    }
    for node in changed:
        assert (node.type, node.site, node.visibility) == tuple(
            getattr(graph[node.name], key) for key in ("type", "site", "visibility")
        )
        if node.op in REGISTRY:
            REGISTRY[node.op].check(node.inputs, dict(node.attrs))


def test_the_forms_that_keep_the_function_change_nothing():
    graph = labelled()
    assert change_model(graph, {}) == change_model(graph, {"gelu": "polynomial", "softmax": "exp"}) == graph


def test_a_changed_graph_tells_what_was_chosen():
    assert changes_in(change_model(labelled(), BOTH)) == BOTH
    assert changes_in(labelled()) == {}


def test_masks_that_differ_between_queries_are_refused():
    with pytest.raises(MpccError, match="softmax=2relu works with masks that are the same for all queries") as caught:
        change_model(labelled("keep", "bool"), BOTH)
    assert "model.attention" in str(caught.value)


def test_unknown_choices_are_refused_with_what_is_known():
    assert CHOICES == {"gelu": ("polynomial", "quad"), "softmax": ("exp", "2quad", "2relu")}
    check_choices(BOTH)
    for wrong in ({"gelu": "2quad"}, {"tanh": "exp"}):
        with pytest.raises(MpccError, match="gelu=polynomial, gelu=quad, softmax=exp, softmax=2quad, softmax=2relu"):
            check_choices(wrong)


def test_every_substitute_is_named_after_what_it_replaces():
    for op in REGISTRY.values():
        if op.replaces:
            assert op.name == f"{op.replaces}_{op.chosen_by[1]}" and op.secure
            assert REGISTRY[op.replaces].arity == op.arity and set(op.attrs) <= set(REGISTRY[op.replaces].attrs)
