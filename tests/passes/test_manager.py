"""The manager: what a pass breaks is found after it, by its name; passes are printed, timed and left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_graphs import stack

from mpcc.compiler.driver.check_options import check_options
from mpcc.compiler.driver.options import SWITCHABLE, Options
from mpcc.compiler.errors import InternalError, MpccError
from mpcc.compiler.graph.ir import Graph, Origin
from mpcc.compiler.graph.text import parse_graph
from mpcc.compiler.graph.verify import STAGES, verify
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.types import TensorType, attributes
from mpcc.passes import GRAPH, RING
from mpcc.passes.calls import GRAPH_CALLS, RING_CALLS, GraphContext, Held, RingContext, RingHeld
from mpcc.passes.manager import Watch, run_graph_passes, run_ring_passes

SAMPLES = [{"x": torch.randn(3, 4, generator=torch.Generator().manual_seed(2))}]


def compiled(watch: Watch | None = None):
    graph, tensors = stack(3)
    return run_graph_passes(Held(graph, tensors), GraphContext(samples=SAMPLES), watch or Watch())[0]


def changed(graph: Graph, name: str, **fields: object) -> Graph:
    return graph.with_nodes([replace(n, **fields) if n.name == name else n for n in graph])


def wrong_type(graph):
    return changed(graph, "l1_gelu", type=TensorType((3, 7)))


def unsorted(graph):
    return graph.with_nodes(graph.nodes[::-1])


def unknown_attribute(graph):
    return changed(graph, "l1_gelu", attrs=attributes(approximate="none", speed=2))


def unknown_operation(graph):
    return changed(graph, "l1_gelu", op="gelo")


def lost_output(graph):
    return Graph(graph.nodes, (("logits", "nowhere"),))


def lost_label(graph):
    return changed(graph, "l1_gelu", visibility="")


def wider_label(graph):
    return changed(graph, "l1_gelu", visibility="client")


def lost_range(graph):
    return changed(graph, "l1_gelu", range=None)


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("simplify", wrong_type, "its type is f32[3,7], its rule gives f32[3,6]"),
        ("narrow_reads", unsorted, "is not defined before its use"),
        ("fold_constants", unknown_attribute, "gelu has the attributes ['approximate'], not ['approximate', 'speed']"),
        ("prepare_masks", unknown_operation, "unknown operation"),
        ("choose_outputs", lost_output, "output 'logits' reads nowhere, which does not exist"),
        ("label", lost_label, "its visibility is ''"),
        ("hoist_prepared", wider_label, "it is client, what it reads makes it secret"),
        ("cut", lost_range, "it has lost its range"),
    ],
)
def test_a_broken_pass_is_caught_by_its_name(monkeypatch, name, broken, message):
    right = GRAPH_CALLS[name]

    def wrong(held, context):
        result = right(held, context)
        return replace(result, graph=broken(result.graph))

    monkeypatch.setitem(GRAPH_CALLS, name, wrong)
    with pytest.raises(InternalError) as error:
        compiled()
    assert str(error.value).startswith(f"after {name}: ")
    assert message in str(error.value)


def test_a_message_names_node_layer_and_source_line():
    graph, _ = stack(1)
    graph = changed(wrong_type(graph) if "l1_gelu" in graph else graph, "l0_gelu", type=TensorType((1,)))
    graph = changed(graph, "l0_gelu", origin=Origin("model.layer.0", "model.py:12"))
    with pytest.raises(
        InternalError, match=r"graph node 4: l0_gelu = gelu at model\.layer\.0 \(model\.py:12\): its type"
    ):
        verify(graph, "captured")


def test_the_compiler_leaves_a_verified_loop():
    held = compiled()
    verify(held.graph, "rolled", calibrated=True)
    assert [n.attr("count") for n in held.graph if n.op == "repeat"] == [3]


LOOP = """graph {
  %x = input {role="client", whole=false} : f32[2] visibility=client site=client
  %w0 = param {tensor="w0"} : f32[2] visibility=provider site=provider
  %w1 = param {tensor="w1"} : f32[2] visibility=provider site=provider
  %r = repeat(%x, %w0, %w1) {carried=1, count=2, invariants=0} : f32[2] visibility=secret site=mpc body {
    %a = arg {index=0, kind="carried"} : f32[2] visibility=secret site=mpc
    %w = arg {index=0, kind="stacked"} : f32[2] visibility=provider site=provider
    %p = mul(%a, %w) : f32[2] visibility=secret site=mpc members=("first", "second")
    return "0" = %p
  }
  %y = take(%r) {index=0} : f32[2] visibility=secret site=mpc
  return "y" = %y
}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ("count=2", "count=3", "3 operands do not fit 3 iterations"),
        ("carried=1, count=2", "carried=3, count=2", "its body returns 1 values, 3 are carried"),
        (
            "take(%r) {index=0}",
            "take(%r) {index=1}",
            "carries no value 1",
        ),
        ('kind="stacked"', 'kind="piled"', "there is no kind 'piled'"),
        ('{index=0, kind="stacked"}', '{index=1, kind="stacked"}', "there is no stacked argument 1"),
        ('members=("first", "second")', 'members=("first")', "names 1 nodes of 2 iterations"),
        ('%w1 = param {tensor="w1"} : f32[2]', '%w1 = param {tensor="w1"} : f32[3]', "differ in type"),
        (", whole=false", "", r"has the attributes \['role'\]"),
        ('{tensor="w0"}', '{tensor=""}', "names no tensor"),
    ],
)
def test_loops_and_leaves(old, new, message):
    graph = parse_graph(LOOP.replace(old, new) if old else LOOP)
    if message is None:
        verify(graph, "rolled")
        return
    with pytest.raises(InternalError, match=message):
        verify(graph, "rolled")


def test_loops_come_last():
    with pytest.raises(InternalError, match="loops are made by the last pass only"):
        verify(parse_graph(LOOP), "cut")


def test_every_stage_is_left_by_a_pass():
    assert {entry.leaves for entry in GRAPH} == set(STAGES)
    assert {entry.leaves for entry in RING} == {"requested", "placed"}


def test_every_pass_says_why_it_stands_where_it_does():
    for entry in (*GRAPH, *RING):
        assert len(entry.because.split()) >= 4, entry.name


def product():
    b = Builder()
    x = b.input("x", (4,), 16, 1.0, "client")
    return b.graph([("y", b.reveal(b.rescale(b.mul(x, x), 16), "y"))])


def test_a_broken_ring_pass_is_caught_by_its_name(monkeypatch):
    right = RING_CALLS["place_truncations"]

    def wrong(held, context):
        ring = right(held, context).ring
        wide = [replace(n, type=replace(n.type, bound=n.type.bound * 4)) if n.op == "trunc" else n for n in ring]
        return RingHeld(replace(ring, nodes=tuple(wide)))

    monkeypatch.setitem(RING_CALLS, "place_truncations", wrong)
    with pytest.raises(InternalError, match=r"after place_truncations: ring node \d+: .* = trunc .*: bound"):
        run_ring_passes(RingHeld(product()), RingContext(), Watch())


def test_a_request_that_is_left_is_caught(monkeypatch):
    monkeypatch.setitem(RING_CALLS, "place_truncations", lambda held, context: held)
    with pytest.raises(InternalError, match=r"after place_truncations: .*a rescale is left"):
        run_ring_passes(RingHeld(product()), RingContext(), Watch())


def test_passes_are_printed_timed_and_left_out():
    written: list[str] = []
    watch = Watch(frozenset({"roll_layers"}), frozenset({"label"}), written.append)
    held = compiled(watch)
    assert not any(n.op == "repeat" for n in held.graph)
    assert len(written) == 3 and all(text.startswith("# after label\ngraph {") for text in written)
    assert parse_graph(written[0].partition("\n")[2])["l0_up"].site == "mpc"
    assert watch.times["label"].runs == 3 and "roll_layers" not in watch.times
    assert all(time.seconds >= 0 and time.verifying >= 0 for time in watch.times.values())


def test_all_prints_every_pass():
    written: list[str] = []
    run_ring_passes(RingHeld(product()), RingContext(), Watch(print_after=frozenset({"all"}), write=written.append))
    assert [text.partition("\n")[0] for text in written] == [f"# after {entry.name}" for entry in RING]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"without": ["label"]}, "the pass label cannot be left out.*narrow_reads"),
        ({"without": ["magic"]}, "the pass magic cannot be left out.*roll_layers"),
        ({"print_after": ["magic"]}, "there is no pass magic.*all, assign_roles"),
    ],
)
def test_unknown_and_obligatory_passes_are_refused(choice, message):
    with pytest.raises(MpccError, match=message):
        check_options(Options(**choice))


def test_every_other_pass_can_be_left_out():
    assert set(check_options(Options(without=SWITCHABLE)).without) == set(SWITCHABLE)


def test_an_option_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(MpccError, match=r"there is no option 'protocl'.*protocol"):
        Options.of(protocl="ring")


def test_the_documentation_names_every_pass_and_what_can_be_left_out():
    text = (Path(__file__).parents[2] / "docs" / "debugging.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    said = {row[0].strip("`"): row[-1] == "yes" for row in rows if len(row) == 4}
    assert said.pop("recover_lora") is False
    assert said == {entry.name: entry.can_be_left_out for entry in (*GRAPH, *RING)}
