"""A program comes back from its files as it was, for every role as much of it as it may have."""

from __future__ import annotations

import json
import shutil
import stat

import numpy as np
import pytest
import standin
import torch

import mpcc
from mpcc.compiler.errors import BundleError
from tests.bundle import tiny_programs as tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    tiny.private_program().save(folder / "prog.mpc")
    tiny.prefix_program().save(folder / "prefix.mpc")
    return folder


@pytest.mark.parametrize("name", ["prog", "prefix"])
def test_loaded_program_is_the_compiled_one(folder, name):
    program = tiny.private_program() if name == "prog" else tiny.prefix_program()
    loaded = mpcc.load(folder / f"{name}.mpc")
    assert loaded.source == program.source
    assert loaded.bundle.graph == program.bundle.graph and loaded.bundle.ring == program.bundle.ring
    assert loaded.bundle.manifest == program.bundle.manifest
    before, after = (p.run(tiny.sample(6), engine="emulator", seed=3) for p in (program, loaded))
    assert torch.equal(before.outputs["logits"], after.outputs["logits"])
    assert loaded.cost().to_json() == program.cost().to_json()


@pytest.mark.parametrize("make", [tiny.private_program, tiny.prefix_program, tiny.lora_program])
def test_result_is_close_to_pytorch(make):
    model = {tiny.private_program: tiny.classifier, tiny.prefix_program: tiny.frozen_prefix}.get(make, tiny.lora)()
    with torch.no_grad():
        want = model(**tiny.sample()).logits
    got = make().run(tiny.sample(), engine="emulator").outputs["logits"]
    torch.testing.assert_close(got, want, rtol=0, atol=0.02)


@pytest.mark.parametrize("make", [tiny.private_program, tiny.prefix_program])
def test_streams_drive_the_emitted_source(make):
    program = make()
    public, private = program.public_stream(), program.provider_stream()
    assert public.size == program.bundle.manifest.public_elements
    client = program.client_stream(tiny.sample())
    inputs = {0: np.concatenate([public, client]), 1: np.concatenate([public, private]), 2: public}
    got = standin.execute(program.source, inputs=inputs, truncation="nearest").private[0][0]
    want = program.run(tiny.sample(), engine="emulator", truncation="nearest").outputs["logits"]
    np.testing.assert_array_equal(
        np.asarray(got) / 2.0 ** program.bundle.manifest.outputs[0].frac_bits,
        want.numpy().reshape(-1).astype(np.float64),
    )


def test_modes_of_the_provider_folder(folder):
    provider = folder / "prog.mpcc" / "provider"
    assert stat.S_IMODE(provider.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in provider.iterdir()} == {0o600}
    assert stat.S_IMODE((folder / "prog.mpcc" / "manifest.json").stat().st_mode) & 0o400


def test_pair_may_be_renamed_together(folder, tmp_path):
    shutil.copy(folder / "prog.mpc", tmp_path / "other.mpc")
    shutil.copytree(folder / "prog.mpcc", tmp_path / "other.mpcc")
    assert mpcc.load(tmp_path / "other.mpc").source == tiny.private_program().source
    assert mpcc.load(tmp_path / "other.mpcc").source == tiny.private_program().source


def test_client_needs_no_provider_folder(folder, tmp_path):
    shutil.copy(folder / "prefix.mpc", tmp_path)
    shutil.copytree(folder / "prefix.mpcc", tmp_path / "prefix.mpcc", ignore=shutil.ignore_patterns("provider"))
    for program in (mpcc.load(tmp_path / "prefix.mpc", roles={"client"}), mpcc.load(tmp_path / "prefix.mpc")):
        assert program.bundle.provider is None
        np.testing.assert_array_equal(
            program.client_stream(tiny.sample()), tiny.prefix_program().client_stream(tiny.sample())
        )
        with pytest.raises(BundleError, match="no provider/ folder"):
            program.run(tiny.sample(), engine="emulator")
        with pytest.raises(BundleError, match="loaded for one role"):
            program.save(tmp_path / "again.mpc")


def test_provider_needs_no_client_folder(folder, tmp_path):
    shutil.copy(folder / "prefix.mpc", tmp_path)
    shutil.copytree(folder / "prefix.mpcc", tmp_path / "prefix.mpcc", ignore=shutil.ignore_patterns("client"))
    program = mpcc.load(tmp_path / "prefix.mpc", roles=["provider"])
    np.testing.assert_array_equal(program.provider_stream(), tiny.prefix_program().provider_stream())
    with pytest.raises(BundleError, match="no client/ folder"):
        program.client_stream(tiny.sample())
    with pytest.raises(BundleError, match="no role 'helper'"):
        mpcc.load(tmp_path / "prefix.mpc", roles=["helper"])


def test_everything_public_needs_no_mpc():
    base = tiny.frozen_prefix()
    with pytest.raises(mpcc.MpccError, match="nothing would stay private"):
        tiny.compiled(base, partition=mpcc.Partition.from_base(base))
    program = tiny.compiled(base, partition=mpcc.Partition.from_base(base), all_public=True)
    assert all(e.visibility == "public" for e in program.bundle.manifest.evidence)
    assert program.cost().bytes_online == 0 and not program.bundle.provider
    with torch.no_grad():
        want = base(**tiny.sample()).logits
    torch.testing.assert_close(program.run(tiny.sample(), engine="emulator").outputs["logits"], want)


def test_manifest_says_what_it_should(folder):
    manifest = json.loads((folder / "prog.mpcc" / "manifest.json").read_text())
    files = {str(p.relative_to(folder / "prog.mpcc")) for p in (folder / "prog.mpcc").rglob("*") if p.is_file()}
    assert set(manifest["digests"]) - {"source"} == {f for f in files if not f.startswith("provider/")} - {
        "manifest.json"
    }
    assert manifest["inputs"][0] | {"shape": 0} == {
        "name": "input_ids",
        "shape": 0,
        "dtype": "i64",
        "role": "client",
        "highest": tiny.VOCABULARY - 1,
        "pad": 0,
    }
    assert manifest["truncation"] == "probabilistic" and manifest["protocol"] == "ring"
    assert {a["operation"] for a in manifest["approximations"]} >= {
        "gelu",
        "tanh",
        "attention: exp",
        "layer_norm: rsqrt",
    }
    assert all(a["error"] is None or 0 < a["error"] < 1e-2 for a in manifest["approximations"])


def test_outputs_in_clear_and_from_mpc_together(tmp_path):
    """Only the pooler is private: the hidden states never enter MPC as an output."""
    model = tiny.shaken(tiny.BertModel(tiny.CONFIG).eval(), 4)
    program = tiny.compiled(
        model, partition=mpcc.Partition.from_rules({"public": ["embeddings.*", "encoder.*"]}), output="all"
    )
    clear = {o.name: o.clear for o in program.bundle.manifest.outputs}
    assert clear == {"last_hidden_state": True, "pooler_output": False}
    program.save(tmp_path / "prog.mpc")
    with torch.no_grad():
        want = model(**tiny.sample())
    for each in (program, mpcc.load(tmp_path / "prog.mpc")):
        got = each.run(tiny.sample(), engine="emulator").outputs
        torch.testing.assert_close(got["last_hidden_state"], want.last_hidden_state)
        torch.testing.assert_close(got["pooler_output"], want.pooler_output, rtol=0, atol=0.01)
    assert {e.tensor for e in program.bundle.manifest.evidence if e.visibility == "provider"} == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }


def test_public_mask_is_open_to_all():
    program = tiny.compiled(tiny.classifier(), public_inputs=["attention_mask"])
    roles = program.to_json()["roles"]
    assert "attention_mask" in roles["provider"]["learns"][0]
    got = program.run(tiny.sample(5), engine="emulator").outputs["logits"]
    with torch.no_grad():
        torch.testing.assert_close(got, tiny.classifier()(**tiny.sample(5)).logits, rtol=0, atol=0.02)
