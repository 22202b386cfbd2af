"""A hundred inferences after one provisioning, in one session of three real parties."""

import pytest
from mp_spdz_here import needs_mp_spdz

from tests.bundle import tiny_programs as tiny

COUNT = 100


@pytest.mark.slow
@needs_mp_spdz
def test_a_hundred_inferences(tmp_path):
    """Each sends what the first one did, which is what was estimated, and never the weights."""
    program = tiny.prefix_program()
    samples = [tiny.sample(seed=seed) for seed in range(COUNT)]
    done = program.provision(tmp_path / "state")
    assert done.bytes == 8 * program.bundle.manifest.private_elements
    results = program.run_many(samples, tmp_path / "state")
    costs = [result.measured for result in results]
    assert len(results) == COUNT and {cost.bytes_by_party for cost in costs} == {program.cost().bytes_by_party}
    assert not any(cost.provisioning_bytes for cost in costs)
    for sample, result in zip(samples, results, strict=True):
        want = program.run(sample, engine="emulator").outputs["logits"]
        assert (result.outputs["logits"] - want).abs().max() < 0.02
