"""Another fine-tune for a compiled program: private values change, nothing is compiled, nobody else's files change."""

import functools
import json
import warnings

import numpy as np
import pytest
import torch
from mp_spdz_here import needs_mp_spdz

import mpcc
from mpcc.cli import app as cli
from mpcc.compiler.errors import MpccError
from tests.bundle import tiny_programs as tiny

SAMPLES = [tiny.sample(seed=seed) for seed in range(3)]


@functools.cache
def program():
    """Calibrated well enough for the next fine-tune as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mpcc.compile(
            tiny.frozen_prefix(),
            sequence_length=tiny.LENGTH,
            calibrate_random=60,
            partition=mpcc.Partition.from_base(tiny.base_model()),
        )


def fine_tune(seed=11, amount=0.15):
    """The same base with its last layer and pooler trained to other values."""
    model = tiny.frozen_prefix()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for part in (model.bert.encoder.layer[1], model.bert.pooler, model.classifier):
        tiny.shaken(part, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name] + amount * (parameter - before[name]))
    return model


def logits(model, sample):
    with torch.no_grad():
        return model(**sample).logits


def test_outputs_are_the_new_models():
    old, model = program(), fine_tune()
    new = old.with_weights(model, calibration=SAMPLES)
    for sample in SAMPLES:
        got = new.run(sample, engine="emulator").outputs["logits"]
        assert (got - logits(model, sample)).abs().max() < 0.02
        assert (logits(model, sample) - logits(tiny.frozen_prefix(), sample)).abs().max() > 0.02
    assert (new.source, new.bundle.manifest, new.bundle.ring) == (old.source, old.bundle.manifest, old.bundle.ring)


def test_a_program_of_a_changed_model_takes_weights_for_that_model():
    old = mpcc.compile(
        tiny.frozen_prefix(),
        sequence_length=tiny.LENGTH,
        calibrate_random=2,
        partition=mpcc.Partition.from_base(tiny.base_model()),
        approximations={"gelu": "quad"},
    )
    new = old.with_weights(tiny.frozen_prefix())
    assert new.bundle.provider.keys() == old.bundle.provider.keys()
    assert all(np.array_equal(new.bundle.provider[k], old.bundle.provider[k]) for k in old.bundle.provider)


def test_what_is_the_same_gives_the_same_weights():
    again = program().with_weights(tiny.frozen_prefix())
    for name, tensor in program().bundle.provider.items():
        assert np.array_equal(again.bundle.provider[name], tensor)


@pytest.mark.slow
def test_an_adapter():
    model = tiny.lora()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.9)
    new = tiny.lora_program().with_weights(model, calibration=SAMPLES)
    assert (new.run(SAMPLES[0], engine="emulator").outputs["logits"] - logits(model, SAMPLES[0])).abs().max() < 0.02


# ** what is refused **
def another_public_weight():
    model = fine_tune()
    tiny.shaken(model.bert.encoder.layer[0], 12)
    return model


def another_width():
    config = type(tiny.CONFIG)(**{**tiny.CONFIG.to_dict(), "num_labels": 3})
    return type(tiny.frozen_prefix())(config).eval()


def another_depth():
    config = type(tiny.CONFIG)(**{**tiny.CONFIG.to_dict(), "num_hidden_layers": 3})
    return type(tiny.frozen_prefix())(config).eval()


def spoilt(value):
    model = fine_tune()
    with torch.no_grad():
        model.bert.pooler.dense.weight[0, 0] = value
    return model


@pytest.mark.parametrize(
    "model, match",
    [
        (another_public_weight, r"the public weight .* is not the one of the program"),
        (another_width, "does not compute what the program does"),
        (another_depth, r"has a weight that the program does not know: bert\.encoder\.layer\.2"),
        (lambda: spoilt(1000.0), r"leaves the range that the program was compiled for"),
        (lambda: spoilt(float("nan")), r"leaves the range that the program was compiled for"),
    ],
)
def test_another_model(model, match):
    with pytest.raises(MpccError, match=match):
        program().with_weights(model())


def test_values_that_leave_their_range():
    """Only inputs show it: every weight by itself is small enough."""
    model = fine_tune(amount=25.0)
    with pytest.raises(MpccError, match=r"leaves the range|away from the float model"):
        program().with_weights(model, calibration=SAMPLES)


def test_inputs_without_a_model(tmp_path, capsys):
    program().save(tmp_path / "prog.mpc")
    assert cli.call(["provision", str(tmp_path / "prog.mpc"), "--base", str(tmp_path)]) == 2
    assert "name the new fine-tune with --model" in capsys.readouterr().err


# ** as a user **
@needs_mp_spdz
def test_on_the_command_line(tmp_path, capsys):
    """Compile and provision once; a new fine-tune is provisioned with the byte code and the public files of before."""
    path, model = tmp_path / "prog.mpc", fine_tune()
    program().save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mpcc.save(model, tmp_path / "new.pt2", sequence_length=tiny.LENGTH)
    inputs = [{name: value.tolist() for name, value in sample.items()} for sample in SAMPLES]
    (tmp_path / "in.json").write_text(json.dumps(inputs))
    assert cli.call(["provision", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compiled"] is True
    before = tiny.snapshot(tmp_path / "prog.mpcc") | {"source": path.read_text()}
    again = ["provision", str(path), "--model", str(tmp_path / "new.pt2"), "--calibration", str(tmp_path / "in.json")]
    assert cli.call([*again, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["compiled"] is False and done["bytes"] == 8 * program().bundle.manifest.private_elements
    after = tiny.snapshot(tmp_path / "prog.mpcc") | {"source": path.read_text()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"provider/weights.safetensors", "provider/manifest.json"} and before.keys() == after.keys()
    assert (tmp_path / "prog.mpcc/provider/weights.safetensors").stat().st_mode & 0o777 == 0o600
    assert cli.call(["run", str(path), "--input", str(tmp_path / "in.json"), "--engine", "mp-spdz", "--json"]) == 0
    for answer, sample in zip(json.loads(capsys.readouterr().out), SAMPLES, strict=True):
        assert answer["measured"]["provisioning_bytes"] == 0
        assert (torch.tensor(answer["outputs"]["logits"]) - logits(model, sample)).abs().max() < 0.02
