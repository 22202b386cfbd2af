"""What a one-layer BERT of width 16 becomes: graph IR, ring IR and MP-SPDZ source, line by line."""

from __future__ import annotations

import pytest
from tiny_models import batches, compiled, tiny

from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.ring.text import parse_ring, print_ring


@pytest.fixture(scope="module")
def program():
    return compiled(tiny("BertForSequenceClassification", layers=1), batches(4, count=2))


def without_ranges(graph):
    """Calibrated numbers may differ in the last bit between machines."""
    from dataclasses import replace

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
