"""What each graph pass does, one behaviour a file: tests/passes/golden/*.txt, rewritten by --update-golden.

A file begins with `pass: sentence`, the title. Then may come `labels: w=public ...` (the graph is labelled before the
pass), `tensor NAME: [numbers]` (others hold ones), `protocol: operands_free=false ...`, `public inputs: NAME ...` and
`shown: labels` (who may read each value is printed, too), `states: NAME=DIM:ENTRIES:BOUND ...` (what stays in the
session), `output: NAME [BITS]` (what is opened, and how many
fractional bits of it). Given is the graph before the pass, Result after it, Client
the client's part of a cut.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpcc.compiler.graph.ir import Graph, Origin
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.compiler.graph.verify import verify
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.ops.base import TO_TORCH
from mpcc.passes import GRAPH
from mpcc.passes.calls import GRAPH_CALLS, GraphContext, Held
from mpcc.passes.graph.declare_states import Kept

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.txt"))
STAGE = {entry.name: entry.leaves for entry in GRAPH}


def headed(text: str) -> tuple[str, dict[str, str], str]:
    """(pass, header lines, given graph)."""
    head, _, rest = text.partition("Given\n")
    lines = dict(line.split(": ", 1) for line in head.splitlines() if line)
    return next(iter(lines)), lines, rest.partition("Result\n")[0]


def context(lines: dict[str, str]) -> GraphContext:
    labels = dict(pair.split("=") for pair in lines.get("labels", "").split())
    facts = {key: json.loads(value) for key, value in (p.split("=") for p in lines.get("protocol", "").split())}
    chosen = dict(pair.split("=") for pair in lines.get("approximations", "").split())
    public = tuple(lines.get("public inputs", "").split())
    output, _, bits = lines.get("output", "logits").partition(" ")
    facts |= {"output": output, "output_frac_bits": int(bits) if bits else None}
    kept = dict(pair.split("=") for pair in lines.get("states", "").split())
    states = {
        name: Kept(int(dim), int(n), float(b)) for name, (dim, n, b) in ((k, v.split(":")) for k, v in kept.items())
    }
    return GraphContext(
        labels=labels, public_inputs=public, approximations=chosen, states=states, place="place", **facts
    )


def store(graph: Graph, lines: dict[str, str]) -> dict[str, torch.Tensor]:
    result = {}
    for node in graph:
        if node.op in ("param", "constant"):
            name, dtype = str(node.attr("tensor")), TO_TORCH[node.type.dtype]
            value = json.loads(lines.get(f"tensor {name}", "1"))
            result[name] = torch.tensor(value, dtype=dtype).expand(node.type.shape).contiguous()
    return result


def shown(graph: Graph, *, labels: bool) -> str:
    nodes = [n if labels else replace(n, visibility="", site="") for n in graph]
    return print_graph(graph.with_nodes([replace(n, origin=Origin(n.origin.layer)) for n in nodes]))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_golden(path, request):
    text = path.read_text("utf-8")
    name, lines, given = headed(text)
    graph, known = parse_graph(given), context(lines)
    graph = infer(graph, known.labels) if "labels" in lines else graph
    verify(graph, "cut" if name == "roll_layers" else "captured")
    held = Held(graph, store(graph, lines))
    after = GRAPH_CALLS[name](held, known)
    verify(after.graph, STAGE[name])
    labels = lines.get("shown") == "labels"
    found = f"{text.partition('Result')[0]}Result\n{shown(after.graph, labels=labels)}"
    if after.client is not None:
        found += f"\nClient\n{shown(after.client, labels=labels)}"
    if request.config.getoption("--update-golden"):
        path.write_text(found, "utf-8")
        return
    assert found == text, f"{path.name} changed: if that is meant, run pytest --update-golden"


def test_every_pass_has_one():
    """But for what is tested by its errors, and ranges, which calibration tests cover."""
    have = {headed(path.read_text("utf-8"))[0] for path in FILES}
    assert {entry.name for entry in GRAPH} - have == {"check_secure", "ranges"}
