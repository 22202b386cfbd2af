"""Seconds, before every commit: a tiny BERT through the compiler, the verifiers, the emulator and the stand-in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import batches, compiled, emulated, on_standin, secure_outputs, tiny

from mpcc.compiler.ring.verify import verify

TOLERANCE = 0.02


@pytest.mark.filterwarnings("ignore")
def test_a_tiny_bert_goes_all_the_way():
    model, inputs = tiny("BertForSequenceClassification"), batches(4, count=2)
    program = compiled(model, inputs)
    verify(program.ring, final=True)
    with torch.no_grad():
        want = model(**inputs[1]).logits.double().numpy()
    assert np.std(want) > 0.1, "a flat model proves nothing"
    assert np.abs(secure_outputs(program, inputs[1], "probabilistic")["logits"] - want).max() < TOLERANCE
    np.testing.assert_array_equal(on_standin(program, inputs[1])[0], emulated(program, inputs[1])["logits"].reshape(-1))
