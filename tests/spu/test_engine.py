"""The spu engine: three (or two) real processes over TLS, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spu_jobs import Job, small_job
from tiny_models import batches, compiled, tiny

from mpcc.backends.spu.stablehlo import emit_stablehlo
from mpcc.compiler.errors import MpccError
from mpcc.compiler.graph.interpret import run_graph
from mpcc.runtime.spu import session as spu_session


@pytest.mark.spu
def test_a_session(work):
    """Three requests in one session: the weights are sent once, and each inference has its own numbers."""
    job, wanted = small_job()
    stages: list[str] = []
    seen: list[int] = []
    others = [{"x": factor * job.client["x"]} for factor in (-1.0, 0.0)]
    served = job.run(*others, on_stage=stages.append, on_answer=lambda number, answer: seen.append(number))
    assert stages == ["compile", "run", "read"] and seen == [0, 1, 2]
    first, second, zero = (next(iter(answer.values())) for answer in served.answers)
    assert np.abs(first - wanted).max() <= 5e-3 and np.abs(second - first).max() > 0.1 and first.shape == zero.shape
    weights = sum(v.size for v in job.provider.values())
    assert served.weights_bytes >= 3 * 8 * weights  # every weight is sent as 64-bit shares
    for measured in served.measured:
        assert len(measured.bytes_by_party) == 3 and min(measured.bytes_by_party) > 0 and measured.rounds > 0
        assert 0 < measured.input_bytes < served.weights_bytes and measured.provisioning_bytes == 0
        assert measured.control_bytes == 2 and measured.seconds > 0


@pytest.mark.spu
@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["cheetah", "semi2k-trusted-first-party"])
def test_two_parties(work, protocol):
    job, wanted = small_job()
    served = job.run(protocol=protocol)
    assert np.abs(next(iter(served.answers[0].values())) - wanted).max() <= 5e-3
    assert len(served.measured[0].bytes_by_party) == 2 and min(served.measured[0].bytes_by_party) > 0


@pytest.mark.spu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("rows, length", [(1, 8), (2, 13), (1, 24)])
def test_classification(work, name, rows, length):
    """Padded batches of tiny models against PyTorch, in one session."""
    model = tiny(f"{name}ForSequenceClassification")
    inputs = batches(length, rows)
    assert any((sample["attention_mask"] == 0).any() for sample in inputs)
    program = compiled(model, inputs)
    code = emit_stablehlo(program.regions.mpc)
    owned = {
        o: {i.tensor: program.tensors[i.tensor].numpy() for i in code.inputs if i.owner == o and i.value is None}
        for o in ("provider", "public")
    }
    shared = [run_graph(program.regions.client, dict(sample), program.tensors) for sample in inputs]
    first, *rest = [{k: v.to(torch.float32).numpy() for k, v in values.items()} for values in shared]
    served = Job(code, first, owned["provider"], owned["public"]).run(*rest)
    for sample, answer in zip(inputs, served.answers, strict=True):
        with torch.no_grad():
            wanted = model(**sample).logits.numpy()
        assert np.abs(answer["logits"] - wanted).max() <= 5e-3


@pytest.mark.spu
@pytest.mark.slow
def test_a_saved_program(work, tmp_path_factory):
    import mpcc
    from tests.bundle import tiny_programs as programs

    path = tmp_path_factory.mktemp("saved") / "prog.mpc"
    programs.prefix_program().save(path)
    sample = {k: torch.nn.functional.pad(v, (0, 3)) for k, v in programs.sample(5).items()}
    program = mpcc.load(path)
    results = program.run_many([sample, sample], engine="spu")
    with torch.no_grad():
        wanted = programs.frozen_prefix()(**sample).logits
    for result in results:
        assert (result.outputs["logits"] - wanted).abs().max() <= 5e-3 and result.engine == "spu"
    first, second = (result.measured for result in results)
    assert first is not None and second is not None and second.bytes_online > 0
    assert first.provisioning_bytes > 0 and second.provisioning_bytes == 0
    with pytest.raises(MpccError, match="stores no shares"):
        program.run_many([sample], tmp_path_factory.mktemp("state"), engine="spu")


@pytest.mark.spu
def test_each_party_is_given_its_own_values_only(work, monkeypatch):
    """No byte of a weight reaches the client's or helper's folder, none of the input the provider's."""
    job, _ = small_job()
    seen: dict[str, bytes] = {}
    keep_run = spu_session.run_parties

    def look(parties, *arguments):
        for party in parties:
            arrays = np.load(party.folder / "weights.npz")
            seen[party.role] = b"".join(arrays[k].tobytes() for k in arrays.files)
            assert (party.folder / "requests").exists() is (party.role == "client")
            assert not list(party.folder.glob("*.key")) and not list(party.folder.glob("*.pem"))
            assert (party.folder / "weights.npz").stat().st_mode & 0o077 == 0
        keep_run(parties, *arguments)

    monkeypatch.setattr(spu_session, "run_parties", look)
    job.run()
    assert seen["helper"] == seen["client"] == b""
    assert seen["provider"] == b"".join(
        job.provider[i.tensor].tobytes() for i in job.program.inputs if i.owner == "provider"
    )
