"""Equal layers become one loop; what differs stays outside, and the meaning stays the same."""

from __future__ import annotations

import pytest
import torch
from harness import scheduled
from small_graphs import stack

from mpcc.backends.mp_spdz.emitter import emit
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.graph.interpret import outputs_of, run_graph
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import lower
from mpcc.passes.graph.roll_layers import roll_layers

X = {"x": torch.randn(3, 4, generator=torch.Generator().manual_seed(5))}
CASES = {
    "one layer": (stack(1), []),
    "two layers": (stack(2), [2]),
    "six layers": (stack(6), [6]),
    "LoRA in the last two of five": (stack(5, lora=(3, 4)), [3, 2]),
    "LoRA in all": (stack(3, lora=(0, 1, 2)), [3]),
    "another width in the middle": (stack(5, inners={2: 7}), [2, 2]),
    "every width another": (stack(3, inners={0: 5, 1: 6, 2: 7}), []),
    "a first layer without residual": (stack(4, ragged=(0,)), [3]),
    "a last layer without residual": (stack(4, ragged=(3,)), [3]),
    "no residuals at all": (stack(3, ragged=(0, 1, 2)), [3]),
}


def labelled(case):
    (graph, tensors), counts = CASES[case]
    return infer(graph, {}), tensors, counts


def loops(graph):
    return [n for n in graph if n.op == "repeat"]


@pytest.mark.parametrize("case", CASES)
def test_counts(case):
    graph, _, counts = labelled(case)
    assert [n.attr("count") for n in loops(roll_layers(graph))] == counts


@pytest.mark.parametrize("case", CASES)
def test_rolled_graph_means_the_same(case):
    graph, tensors, _ = labelled(case)
    rolled = roll_layers(graph)
    want = outputs_of(graph, run_graph(graph, X, tensors))
    torch.testing.assert_close(outputs_of(rolled, run_graph(rolled, X, tensors)), want, rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_text_round_trip(case):
    rolled = roll_layers(labelled(case)[0])
    assert parse_graph(print_graph(rolled)) == rolled


def test_values_of_every_layer_keep_their_names():
    graph, tensors, _ = labelled("six layers")
    names = {f"l{i}_gelu" for i in range(6)}
    want = run_graph(graph, X, tensors, keep=names)
    torch.testing.assert_close(run_graph(roll_layers(graph), X, tensors, keep=names), want)


def test_origins_name_the_range_of_layers():
    (loop,) = loops(roll_layers(labelled("six layers")[0]))
    assert {n.origin.layer for n in loop.body if n.op == "gelu"} == {"model.layer.{0..5}"}


def test_public_and_private_layers_are_not_rolled_together():
    """All seven are secret (the first weight is private), but three of them have public weights."""
    graph, tensors = stack(7)
    public = {n: "public" for n in tensors if n.startswith(("model.layer.1", "model.layer.2", "model.layer.3"))}
    rolled = roll_layers(infer(graph, public))
    assert [n.attr("count") for n in loops(rolled)] == [3, 3]
    for loop, visibility in zip(loops(rolled), ("public", "provider"), strict=True):
        assert {rolled[name].visibility for name in loop.inputs if rolled[name].op == "param"} == {visibility}


def test_ranges_cover_all_layers():
    graph, tensors, _ = labelled("six layers")
    graph = calibrate(graph, tensors, [X])
    (loop,) = loops(roll_layers(graph))
    (gelu,) = (n for n in loop.body if n.op == "gelu")
    ranges = [graph[f"l{i}_gelu"].range for i in range(6)]
    assert gelu.range == (min(r[0] for r in ranges), max(r[1] for r in ranges))


def test_emitted_source_does_not_grow_with_depth():
    sizes = []
    for layers in (2, 6, 12):
        graph, tensors = stack(layers)
        graph = calibrate(infer(graph, {}), {k: t / 4 for k, t in tensors.items()}, [X])
        ring = scheduled(lower(roll_layers(graph), Settings()).ring)
        sizes.append(len(emit(ring, protocol="ring", title="t", truncation="probabilistic").text))
    assert max(sizes) <= 1.05 * min(sizes)
