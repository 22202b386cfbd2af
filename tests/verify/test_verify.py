"""`mpcc verify`: outputs against the float model, layer by layer in the emulator."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from mpcc import MpccError
from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.verify import Deviation, ModelReference, verify
from tests.bundle import tiny_programs as tiny

SAMPLES = [tiny.sample(5), tiny.sample(8, seed=3)]


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs the command on a program in memory; returns (exit code, output)."""

    def run(*arguments, program=None):
        loaded = program or tiny.prefix_program()
        monkeypatch.setattr(files, "load", lambda path: loaded)
        texts = [{k: v.tolist() for k, v in s.items()} for s in SAMPLES]
        (tmp_path / "in.json").write_text(json.dumps(texts))
        code = cli.call(["verify", "p.mpc", "--samples", str(tmp_path / "in.json"), *arguments])
        return code, capsys.readouterr()

    return run


def spoiled(program, factor):
    """The program with one private weight changed for the engine, but not for the reference."""
    bundle = program.bundle
    name = bundle.manifest.private_weights[-1].tensor
    other = f"{name}.before"
    nodes = [
        n.with_attrs(tensor=other) if n.op in ("param", "constant") and n.attr("tensor") == name else n
        for n in bundle.mpc
    ]
    provider = {**bundle.provider, other: bundle.provider[name], name: bundle.provider[name] * factor}
    return dataclasses.replace(
        program, bundle=dataclasses.replace(bundle, provider=provider, mpc=bundle.mpc.with_nodes(nodes))
    )


@pytest.mark.parametrize("make", [tiny.private_program, tiny.prefix_program, tiny.lora_program])
def test_the_bundle_alone_is_a_reference(make):
    result = verify(make(), SAMPLES, engine="emulator")
    assert result.ok and result.samples == 2 and result.reference == "bundle"
    logits = result.outputs["logits"]
    assert 0 < logits.mean <= logits.largest < 0.02 and logits.magnitude > 0.1
    assert (logits.same_labels, logits.rows) == (2, 2)


def test_it_survives_the_file(tmp_path):
    import mpcc

    tiny.prefix_program().save(tmp_path / "p.mpc")
    assert verify(mpcc.load(tmp_path / "p.mpc"), SAMPLES[:1], engine="emulator").ok
    client = mpcc.load(tmp_path / "p.mpc", roles=["client"])
    with pytest.raises(MpccError, match="no provider/ folder"):
        verify(client, SAMPLES, engine="emulator")


@pytest.mark.parametrize(
    ("make", "model"), [(tiny.private_program, tiny.classifier), (tiny.prefix_program, tiny.frozen_prefix)]
)
def test_the_model_itself_agrees_with_the_bundle(make, model):
    program = make()
    reference = ModelReference(program, model())
    by_model, by_bundle = (verify(program, SAMPLES, engine="emulator", model=m) for m in (reference, None))
    assert by_model.ok and by_model.reference == "model"
    assert by_model.outputs["logits"].largest == pytest.approx(by_bundle.outputs["logits"].largest, abs=1e-4)
    other = verify(program, SAMPLES, engine="emulator", model=ModelReference(program, tiny.classifier(99)))
    assert not other.ok


def test_layers_have_their_own_names_and_errors():
    result = verify(tiny.private_program(), SAMPLES, engine="emulator", layers=True)
    for i in (0, 1):
        check = result.layers[f"bert.encoder.layer.{i}.output.LayerNorm"]
        assert 0 < check.mean <= check.largest < 0.01 and check.worst and check.magnitude > 0.5
        assert 0.3 < result.layers[f"bert.encoder.layer.{i}.intermediate.dense"].ratio <= 1.0
    assert result.layers["classifier"].largest == pytest.approx(result.outputs["logits"].largest)
    assert not any("{" in name or "stacked" in name for name in result.layers)
    plain = verify(tiny.private_program(), SAMPLES, engine="emulator")
    assert plain.outputs == result.outputs and not plain.layers


def test_bounds_that_were_too_small_are_warned_of():
    program = tiny.prefix_program()
    tighter = {
        n.name: dataclasses.replace(n.type, bound=n.type.bound / 8)
        for n in program.bundle.ring
        if n.op == "trunc" and n.origin.layer == "classifier"
    }
    nodes = tuple(dataclasses.replace(n, type=tighter.get(n.name, n.type)) for n in program.bundle.ring)
    ring = dataclasses.replace(program.bundle.ring, nodes=nodes)
    changed = dataclasses.replace(program, bundle=dataclasses.replace(program.bundle, ring=ring))
    result = verify(changed, SAMPLES, engine="emulator", layers=True)
    assert result.ok and result.layers["classifier"].ratio > 1
    assert any(w.startswith("classifier: ") and "declared bound" in w for w in result.warnings)


def test_an_error_is_found_and_placed():
    result = verify(spoiled(tiny.prefix_program(), 1.5), SAMPLES, engine="emulator", layers=True)
    assert not result.ok and result.outputs["logits"].largest > 0.02
    early = result.layers["bert.encoder.layer.1.attention.self.query"]
    assert early.largest < 0.01 < result.layers["classifier"].largest


def test_nan_is_never_within_a_tolerance():
    check = Deviation("x")
    check.add(np.array([1.0, math.nan]), np.array([1.0, 1.0]))
    check.add(np.array([1.0]), np.array([1.0]))
    assert math.isnan(check.largest) and not check.largest <= 1e9


def test_padding_does_not_count():
    from mpcc.verify import kept_part

    mask = torch.tensor([[1, 1, 0]])
    assert kept_part((1, 3, 4), mask).tolist() == [[True, True, False]]
    assert kept_part((1, 2), mask).tolist() == [True]


def test_the_secure_engine_is_compared_too(monkeypatch):
    program = tiny.prefix_program()
    from mpcc.program import Program

    real = Program.run
    monkeypatch.setattr(Program, "run", lambda self, x, engine, **k: real(self, x, "emulator", seed=1))
    assert verify(program, SAMPLES, engine="mp-spdz").ok


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"samples": []}, "nothing to verify"),
        ({"engine": "mp-spdz", "layers": True}, "only the emulator"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_mistakes(options, match):
    chosen = {"engine": "emulator", "samples": SAMPLES} | options
    with pytest.raises(MpccError, match=match):
        verify(tiny.prefix_program(), **chosen)


def test_a_graph_that_breaks_a_rule_is_not_run():
    program = tiny.prefix_program()
    mpc = program.bundle.mpc
    broken = mpc.with_nodes([dataclasses.replace(n, op="tanh") if n.op == "gelu" else n for n in mpc])
    part = dataclasses.replace(program, bundle=dataclasses.replace(program.bundle, mpc=broken))
    with pytest.raises(MpccError, match=r"the graph breaks a rule: .*tanh"):
        verify(part, SAMPLES, engine="emulator")


# ** the command **
def test_command(command):
    code, printed = command("--engine", "emulator", "--layers")
    assert code == 0, printed.err
    assert "2 of 2" in printed.out and "By layer" in printed.out and "ok: every output is within 0.02" in printed.out


def test_command_fails_past_the_tolerance(command):
    code, printed = command("--engine", "emulator", "--tolerance", "1e-7")
    assert code == 1 and "FAILED" in printed.out
    code, printed = command("--engine", "emulator", "--json", program=spoiled(tiny.prefix_program(), 1.5))
    table = json.loads(printed.out)
    assert code == 1 and table["ok"] is False and table["outputs"][0]["max_error"] > 0.02


def test_command_json(command):
    code, printed = command("--engine", "emulator", "--layers", "--json")
    table = json.loads(printed.out)
    assert code == 0 and table["ok"] and table["samples"] == 2 and table["engine"] == "emulator"
    assert {o["name"] for o in table["outputs"]} == {"logits"} and len(table["layers"]) > 5
    assert all(set(c) >= {"layer", "max_error", "mean_error", "bound_used"} for c in table["layers"])


def test_command_with_the_model_file(command):
    code, printed = command(
        "--engine", "emulator", "--model", str(tiny.saved_model()), "--json", program=tiny.private_program()
    )
    assert code == 0, printed.err
    assert json.loads(printed.out)["reference"] == "model"


def test_command_mistakes(command):
    code, printed = command("--engine", "spy")
    assert code == 2 and "there is no engine" in printed.err
