"""Every protocol on a real MP-SPDZ: the numbers of the emulator, PyTorch's logits, the traffic that was promised.

Skipped for a protocol whose party program is not built.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import primitives
import pytest
import tiny_programs
import torch
from mp_spdz_here import HOME, needs_mp_spdz
from one_request import Job, run_job
from ring_cases import assert_same, for_protocol, make, run_emulator
from tiny_models import batches, compiled, shared_inputs, tiny

from mpcc.backends.mp_spdz.weights import Region, tensor_order
from mpcc.compiler.cost import estimate
from mpcc.compiler.fixed import decode, encode
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.protocols import PROTOCOLS

OTHERS = [name for name in PROTOCOLS if name != "ring"]
SMALL = ("matmuls", "products", "comparisons", "selections", "truncations", "loops", "publics")
WITHIN = {
    "dealer-ring": 0.05,
    "semi2k": 0.25,
    "hemi": 0.25,
    "temi": 0.25,
    "rep4-ring": 0.25,
    "ps-rep-ring": 0.25,
    "sy-rep-ring": 0.25,
}


@pytest.fixture(autouse=True)
def built(request):
    """The party program of the test's protocol."""
    protocol = request.getfixturevalue("protocol")
    binary = Path(HOME) / PROTOCOLS[protocol].binary
    if not os.access(binary, os.X_OK):
        pytest.skip(f"{binary.name} is not built")


def job_of(case, protocol, truncation):
    return replace(for_protocol(case, protocol, truncation).job, protocol=protocol)


@needs_mp_spdz
@pytest.mark.parametrize("protocol", OTHERS)
@pytest.mark.parametrize("name", SMALL)
def test_the_numbers_of_the_emulator(name, protocol):
    case = make(primitives.PROGRAMS[name])
    assert_same(run_job(job_of(case, protocol, "nearest")).outputs, run_emulator(case))


@needs_mp_spdz
@pytest.mark.parametrize("protocol", OTHERS)
def test_probabilistic_truncation_is_unbiased(protocol):
    """floor or floor + 1, the latter as often as the fraction says."""
    bits = 8

    def build(b):
        return {"y": b.rescale(b.input("x", (4000,), 16, 2.0**20, "client"), 16 - bits)}

    case = make(build, truncation="probabilistic")
    x = case.inputs["x"]
    up = run_job(job_of(case, protocol, "probabilistic")).outputs["y"] - (x >> bits)
    assert set(np.unique(up)) <= {0, 1}
    fraction = (x & (2**bits - 1)) / 2**bits
    assert not up[fraction == 0].any()
    assert abs(float((up - fraction).mean())) < 0.03


def stream(region: Region, program) -> np.ndarray:
    parts = [encode(program.tensors[t].double().numpy(), bits).reshape(-1) for t, bits, _ in tensor_order(region)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@needs_mp_spdz
@pytest.mark.parametrize("protocol", OTHERS)
def test_one_layer_of_a_bert(protocol):
    """16 tokens: PyTorch's logits, and the bytes of the estimate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = tiny("BertForSequenceClassification", layers=1), batches(16)
        program = compiled(model, inputs, protocol=protocol)
    given = shared_inputs(program, inputs[1])
    outputs = tuple((n.str_attr("name"), n.type.elements) for n in program.ring if n.op == "reveal")
    layout = program.source.layout
    client = np.concatenate([given[name].reshape(-1) for name in program.source.inputs])
    job = Job(
        program.source.text, protocol, stream(layout.public, program), stream(layout.private, program), client, outputs
    )
    result = run_job(job)
    with torch.no_grad():
        want = model(**inputs[1]).logits.double().numpy().ravel()
    got = decode(result.outputs["logits"], program.ring[dict(program.ring.outputs)["logits"]].type.frac_bits)
    assert np.abs(got - want).max() < 0.02 and got.argmax() == want.argmax()
    cost, measured = estimate(program.ring, protocol), result.measured
    assert measured.bytes_online == pytest.approx(cost.bytes_online, rel=WITHIN[protocol])
    assert measured.rounds == pytest.approx(cost.rounds, rel=0.35)
    assert len(measured.bytes_by_party) == PROTOCOLS[protocol].parties


@needs_mp_spdz
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_session(protocol, tmp_path):
    """Shares stored where the protocol allows it; a request costs what one inference alone does, or less."""
    program = tiny_programs.compiled(
        tiny_programs.frozen_prefix(), protocol=protocol, partition=Partition.from_base(tiny_programs.base_model())
    )
    samples = [tiny_programs.sample(seed=seed) for seed in range(2)]
    state = tmp_path / "state" if PROTOCOLS[protocol].stored_shares else None
    if state is not None:
        program.provision(state)
    results = program.run_many(samples, state)
    for sample, result in zip(samples, results, strict=True):
        want = program.run(sample, engine="emulator").outputs["logits"]
        assert (result.outputs["logits"] - want).abs().max() < 0.02
    alone = program.run(samples[0], engine="mp-spdz").measured.bytes_online
    costs = [result.measured.bytes_online for result in results]
    assert max(costs) <= 1.05 * alone
    assert state is None or results[0].measured.provisioning_bytes == 0
