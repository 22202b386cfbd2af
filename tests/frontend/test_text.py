"""Print and parse are inverse; malformed text is one error with a line number."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.ir import Graph, Node, Origin
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.types import DTYPES, VISIBILITIES, TensorType, attributes

WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
NAMES = st.one_of(st.from_regex(r"[a-z0-9_.]{1,8}", fullmatch=True), WORDS.filter(bool))
FLOATS = st.floats(allow_nan=False)
ATTRS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, WORDS),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@st.composite
def nodes(draw, names, depth):
    listed = []
    for name in names:
        sources = draw(st.lists(st.sampled_from([n.name for n in listed]), max_size=3)) if listed else []
        listed.append(
            Node(
                name=name,
                op=draw(NAMES),
                inputs=tuple(sources),
                attrs=attributes(**draw(st.dictionaries(NAMES, ATTRS, max_size=3))),
                type=TensorType(
                    tuple(draw(st.lists(st.integers(0, 999), max_size=3))), draw(st.sampled_from(sorted(DTYPES)))
                ),
                origin=Origin(draw(WORDS), draw(WORDS)),
                visibility=draw(st.sampled_from(["", *VISIBILITIES])),
                site=draw(st.sampled_from(["", "compile", "client", "provider", "mpc"])),
                range=draw(st.none() | st.tuples(FLOATS, FLOATS)),
                stats=tuple(draw(st.dictionaries(NAMES, FLOATS, max_size=2)).items()),
                members=tuple(draw(st.lists(WORDS, max_size=2))),
                body=draw(graphs(depth - 1)) if depth and draw(st.booleans()) else None,
            )
        )
    return tuple(listed)


@st.composite
def graphs(draw, depth=2):
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    listed = draw(nodes(names, depth))
    outputs = draw(st.lists(st.tuples(WORDS, st.sampled_from(names)), max_size=2)) if names else []
    return Graph(listed, tuple(outputs))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(graphs())
def test_round_trip(graph):
    text = print_graph(graph)
    again = parse_graph(text)
    assert again == graph
    assert repr(again) == repr(graph)  # -0.0 and 1 against 1.0 and True, which == takes for the same
    assert print_graph(again) == text


def test_every_field_of_a_node_is_printed():
    assert {f.name for f in dataclasses.fields(Node)} == {
        "name",
        "op",
        "inputs",
        "attrs",
        "type",
        "origin",
        "visibility",
        "site",
        "range",
        "stats",
        "members",
        "body",
    }


LINES = ["graph {", "  %a = input : f32[2]", "  %b = tanh(%a) : f32[2]", '  return "y" = %b', "}"]


def changed(line, text):
    return "\n".join([*LINES[: line - 1], text, *LINES[line:]])


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (3, "  %b = tanh(%c) : f32[2]", "before it is defined"),
        (3, "  %a = tanh(%a) : f32[2]", "twice"),
        (3, "  %b = tanh(%a : f32[2]", "expected ','"),
        (3, "  %b = tanh(%a) : f99[2]", "element type"),
        (3, "  %b = tanh(%a) : f32[-2]", "size"),
        (3, "  %b = tanh(%a) {k=__import__} : f32[2]", "expected a value"),
        (3, "  %b = tanh(%a) ; : f32[2]", "character"),
        (3, '  %b = tanh(%a) {k="\\q"} : f32[2]', "escape"),
        (3, "  %b = tanh(%a) : f32[2] stats={k=true}", None),
        (4, '  return "y" = %c', "before it is defined"),
        (5, "} more", "after"),
    ],
)
def test_errors_name_the_line(line, text, message):
    if message is None:
        parse_graph(changed(line, text))
        return
    with pytest.raises(BundleError, match=f"line {line}") as error:
        parse_graph(changed(line, text))
    assert message in str(error.value)


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(BundleError):
        parse_graph(changed(3, "  %b = tanh(%a) {k=" + "(" * 5000 + ")" * 5000 + "} : f32[2]"))


def test_truncated_text():
    text = "\n".join(LINES)
    for cut in range(len(text)):
        with pytest.raises(BundleError):
            parse_graph(text[:cut])
