"""What a one-layer BERT of width 16 becomes: graph IR, ring IR and MP-SPDZ source, line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_models import batches, compiled, tiny

from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import front_end
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.ring.text import parse_ring, print_ring


@pytest.fixture(scope="module")
def program():
    return compiled(tiny("BertForSequenceClassification", layers=1), batches(4, count=2))


def without_ranges(graph):
    """Calibrated numbers may differ in the last bit between machines."""
    return graph.with_nodes([replace(n, range=None, stats=()) for n in graph])


def test_graph_ir(program, golden):
    graph = without_ranges(program.graph)
    assert parse_graph(print_graph(graph)) == graph
    golden("bert_graph.txt", print_graph(graph))


def test_ring_ir(program, golden):
    assert parse_ring(print_ring(program.ring)) == program.ring
    golden("bert_ring.txt", print_ring(program.ring))


def test_source(program, golden):
    golden("bert_source.mpc.txt", program.source.text)


def test_source_names_nothing_of_the_model(program):
    text = program.source.text.lower()
    assert not [name for name in ("bert", "query", "classifier", "embedding") if name in text]


def test_two_layers_share_one_mask():
    """The last layer, narrowed to one query, reads the mask that the layers before it read."""
    captured = capture(tiny("BertForSequenceClassification", layers=2), batches(4)[0])
    graph = front_end(captured, Partition.all_private().label(captured), Options()).graph
    assert [n.op for n in graph if n.op in ("attention", "first_kept")] == ["first_kept", "attention", "attention"]
