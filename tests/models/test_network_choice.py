"""A model compiled for a near and a far network, and what its passes save."""

from __future__ import annotations

import pytest
import torch
from tiny_models import batches, compiled, secure_outputs, tiny

from mpcc.compiler.driver.options import SWITCHABLE, Options
from mpcc.compiler.driver.pipeline import compile_model
from mpcc.compiler.driver.savings import measured_savings
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition


@pytest.mark.slow
def test_a_far_network_takes_fewer_rounds_and_no_more_seconds():
    model, samples = tiny("BertForSequenceClassification"), batches(6)
    near, far = (compiled(model, samples, profile="default", network=n) for n in ("lan", "wan"))
    assert {a.name for a in far.alternatives} > {"fewest bytes"}
    first, last = far.alternatives[0], [a for a in far.alternatives if a.chosen][-1]
    assert last.rounds < first.rounds and last.seconds < first.seconds
    assert last.seconds <= min(a.seconds for a in far.alternatives) * 1.02
    with torch.no_grad():
        want = model(**samples[0]).logits.double()
    for program in (near, far):
        found = next(iter(secure_outputs(program, samples[0], "nearest").values()))
        assert abs(torch.as_tensor(found).reshape(want.shape) - want).max() < 5e-3


@pytest.mark.slow
def test_savings_are_those_of_a_program_without_the_pass():
    model, samples = tiny("BertForSequenceClassification"), batches(4)
    captured, options = capture(model, samples[0]), Options(profile="default")
    whole = compile_model(captured, Partition.all_private(), samples, options)
    savings = {s.without: s for s in measured_savings(captured, Partition.all_private(), samples, whole)}
    assert set(savings) == set(SWITCHABLE) and not any(s.problem for s in savings.values())
    for name in ("narrow_reads", "fold_affine", "merge_rescales", "choose_truncations"):
        assert savings[name].bytes > 0, name
    assert savings["roll_layers"].bytes == 0  # it saves source where layers are equal, never bytes
