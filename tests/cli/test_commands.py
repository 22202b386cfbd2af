"""What the commands print when all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import child
import pytest
import torch

import mpcc
from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.compiler.bundle.manifest import from_text, to_text
from mpcc.compiler.findings import Saving
from mpcc.inputs import prepare_inputs
from mpcc.program import Program
from mpcc.runtime.engine import Measured, Served
from tests.bundle import tiny_programs as tiny


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """No file is read: loading has its own tests."""
    monkeypatch.setattr(
        files, "load", lambda path: tiny.prefix_program() if "prefix" in str(path) else tiny.private_program()
    )


def output(capsys, *arguments):
    assert cli.call([str(a) for a in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr()


def test_compile_and_run(capsys, tmp_path, monkeypatch):
    monkeypatch.undo()
    arguments = ["compile", tiny.saved_model(), "-o", tmp_path / "new.mpc", "--calibrate-random", 3]
    done = output(capsys, *arguments)
    assert "wrote" in done.out and "private and 0 public weights" in done.out
    assert "random inputs" in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.mpc", "new.mpcc"]
    (tmp_path / "in.json").write_text('[{"text": "a fine film"}, {"text": "a bad film"}]')
    done = output(
        capsys, "run", tmp_path / "new.mpc", "--input", tmp_path / "in.json", "--engine", "emulator", "--json"
    )
    results = json.loads(done.out)
    assert len(results) == 2 and results[0]["outputs"]["logits"] != results[1]["outputs"]["logits"]


def test_inspect_json_holds_the_contract(capsys):
    table = json.loads(output(capsys, "inspect", "prefix.mpc", "--json", "--network", "wan").out)
    evidence = tiny.prefix_program().bundle.manifest.evidence
    for word, visibility in (("public", "public"), ("private", "provider")):
        chosen = [e for e in evidence if e.visibility == visibility]
        assert table["parameters"][word] == {"tensors": len(chosen), "bytes": sum(e.bytes for e in chosen)}
    assert set(table["operations"]) == {"public", "client", "provider", "mpc"}
    assert sum(table["operations"].values()) == len(tiny.prefix_program().bundle.graph.operations())
    cost = table["cost"]
    assert cost["network"] == "wan" and cost["bytes_online"] > 0 and cost["bytes_offline"] == 0 and cost["seconds"] > 0
    for key in ("layer", "operation", "primitive"):
        assert sum(r["bytes"] for r in cost[f"by_{key}"]) == cost["bytes_online"]
    assert table["protocol"] == "ring" and table["outputs"][0]["name"] == "logits"
    assert {g["visibility"] for g in table["parameters"]["groups"]} == {"public", "private"}
    assert sum(g["tensors"] for g in table["parameters"]["groups"]) == len(evidence)
    assert sum(t["bytes"] for t in table["shared"]) == table["roles"]["client"]["shared_bytes"]
    assert table["roles"]["client"]["weight_bytes"] > 0 and table["roles"]["helper"]["learns"] == ["nothing"]


def test_inspect_shows_all_of_it(capsys):
    out = output(capsys, "inspect", "prefix.mpc").out
    for part in (
        "Weights and the evidence",
        "byte-equal to the base",
        "Who computes and learns what",
        "Cost by layer",
        "Cost by operation",
        "Cost by primitive",
        "Once per deployment",
        "Approximations",
        "semi-honest",
    ):
        assert part in out
    assert "\x1b" not in out
    only = output(capsys, "inspect", "prefix.mpc", "--by", "primitive").out
    assert "Cost by primitive" in only and "Cost by layer" not in only


def test_explain_shows_the_alternatives(capsys):
    manifest = tiny.prefix_program().bundle.manifest
    out = " ".join(output(capsys, "explain", "prefix.mpc", "--alternatives").out.split())
    for part in ("Forms considered for lan (1000 Mbit/s, 0.5 ms round trip)", "fewest bytes", "On lan "):
        assert part in out
    table = json.loads(output(capsys, "explain", "prefix.mpc", "--alternatives", "--json").out)
    assert [a["name"] for a in table["alternatives"]] == [a.name for a in manifest.alternatives]
    assert table["network"]["name"] == "lan" and table["why"].startswith("On lan ")


def test_inspect_on_a_network_of_a_file(capsys, tmp_path):
    (tmp_path / "site.toml").write_text("bandwidth_mbit_per_s = 50\nround_trip_ms = 10\n")
    cost = json.loads(output(capsys, "inspect", "prefix.mpc", "--json", "--network", tmp_path / "site.toml").out)[
        "cost"
    ]
    assert (cost["network"], cost["bandwidth_mbit_per_s"], cost["round_trip_ms"]) == ("site", 50, 10)


def test_inspect_shows_what_passes_save(capsys, monkeypatch):
    bundle = tiny.prefix_program().bundle
    savings = (Saving("narrow_reads", 12_345, 6, 78), Saving("fold_affine", 0, 0, 0, "no range"))
    told = replace(bundle.manifest, savings=savings)
    again, digests = from_text(to_text(told, {"ring.ir": "ab"}), "manifest.json")
    assert again == told and digests == {"ring.ir": "ab"}
    monkeypatch.setattr(files, "load", lambda path: Program(replace(bundle, manifest=again)))
    out = output(capsys, "inspect", "prefix.mpc").out
    assert "What each pass saves" in out and "+12,345" in out and "does not compile: no range" in out


def test_explain_says_that_there_was_no_choice(capsys, monkeypatch):
    bundle = tiny.prefix_program().bundle
    only = Program(replace(bundle, manifest=replace(bundle.manifest, alternatives=())))
    monkeypatch.setattr(files, "load", lambda path: only)
    assert "there was no choice" in output(capsys, "explain", "prefix.mpc", "--alternatives").out


def test_inspect_prints_the_irs(capsys):
    from mpcc.compiler.graph.text import parse_graph
    from mpcc.compiler.ring.text import print_ring

    assert parse_graph(output(capsys, "inspect", "p.mpc", "--ir", "graph").out) == tiny.private_program().bundle.graph
    assert output(capsys, "inspect", "p.mpc", "--ir", "ring").out == print_ring(tiny.private_program().bundle.ring)


def test_run_prints_labels_and_the_comparison(capsys, tmp_path):
    (tmp_path / "in.json").write_text('{"text": "a fine film"}')
    done = output(capsys, "run", "p.mpc", "--input", tmp_path / "in.json", "--engine", "emulator")
    assert "label: " in done.out and "estimated" in done.out and "measured" in done.out
    assert "protects nothing" in done.err
    again = output(capsys, "run", "p.mpc", "--input", tmp_path / "in.json", "--engine", "emulator", "--json").out
    table = json.loads(again)
    assert set(table) >= {"outputs", "engine", "measured", "estimated"} and table["engine"] == "emulator"
    assert table["labels"]["logits"][0] in ("good", "bad")


def test_run_on_mp_spdz_reports_its_measurement(capsys, tmp_path, monkeypatch):
    from mpcc.runtime.mp_spdz import engine as mp_spdz
    from mpcc.runtime.mp_spdz import session

    jobs = []

    def serve(program, requests, *, weights, on_answer, **options):
        jobs.append((program, weights, list(requests)))
        numbers = torch.tensor([1, 2]).numpy() << tiny.prefix_program().bundle.manifest.frac_bits
        measured = Measured("mp-spdz", (10, 20, 30), (4, 5, 6), 0.5, 0, 0.0, 80, 0.0)
        roles = ("client", "provider", "helper")
        return Served("mp-spdz", "ring", roles, (0, 1, 2), ({"logits": numbers},), (measured,), weights_bytes=70)

    monkeypatch.setattr(session, "serve", serve)
    monkeypatch.setattr(mp_spdz, "find_home", lambda: None)
    monkeypatch.setenv("MP_SPDZ_HOME", str(tmp_path))
    (tmp_path / "in.json").write_text('{"text": "a fine film"}')
    table = json.loads(output(capsys, "run", "prefix.mpc", "--input", write_ids(tmp_path), "--json").out)
    assert table["engine"] == "mp-spdz" and table["outputs"]["logits"] == [[1.0, 2.0]]
    assert table["measured"]["bytes_online"] == 60 and table["measured"]["rounds"] == 6
    assert table["measured"]["provisioning_bytes"] == 70 and table["measured"]["input_bytes"] == 80
    program, weights, requests = jobs[0]
    assert program.outputs == (("logits", 2),) and program.source == tiny.prefix_program().source
    assert weights.size == program.private_elements == tiny.prefix_program().bundle.manifest.private_elements
    assert [request.size for request in requests] == [program.client_elements]
    shown = output(capsys, "run", "prefix.mpc", "--input", write_ids(tmp_path)).out
    assert "60" in shown and "Engine mp-spdz" in shown


def write_ids(folder):
    (folder / "ids.json").write_text(json.dumps({k: v.tolist() for k, v in tiny.sample(5).items()}))
    return folder / "ids.json"


def test_explain(capsys):
    listed = output(capsys, "explain", "prefix.mpc").out
    assert "client: " in listed and "mpc: " in listed and "bert.encoder.layer.1" in listed
    out = output(capsys, "explain", "prefix.mpc", "bert.encoder.layer.0.output.dense.weight").out
    assert "is public: byte-equal to" in out


def test_short_inputs_are_padded_where_a_mask_allows():
    program = tiny.private_program()
    specs = program.bundle.manifest.inputs
    padded = prepare_inputs(tiny.sample(5), specs)
    assert padded["input_ids"].shape == (1, 8) and padded["attention_mask"].sum() == 5
    with torch.no_grad():
        want = tiny.classifier()(**tiny.sample(5)).logits
    got = program.run(tiny.sample(5), engine="emulator").outputs["logits"]
    torch.testing.assert_close(got, want, rtol=0, atol=0.02)


def test_text_is_the_ids_of_its_tokens():
    program = tiny.private_program()
    text = program.run({"text": "a fine film"}, engine="emulator").outputs["logits"]
    ids = torch.tensor([[2, 3, 4]])
    direct = program.run({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, engine="emulator").outputs[
        "logits"
    ]
    assert torch.equal(text, direct)
    cut = program.run({"text": "fine " * 20}, engine="emulator", truncate=True).outputs["logits"]
    full = torch.full((1, 8), 3)
    whole = program.run({"input_ids": full, "attention_mask": torch.ones_like(full)}, engine="emulator").outputs[
        "logits"
    ]
    assert torch.equal(cut, whole)
    with pytest.raises(mpcc.MpccError, match="carries no tokenizer"):
        tiny.prefix_program().run({"text": "a"}, engine="emulator")


def test_cost_by_key_keeps_the_totals():
    program = tiny.private_program()
    for key in ("layer", "operation", "primitive"):
        cost = program.cost(network="wan", by=key)
        assert cost.bytes_online == program.cost().bytes_online and cost.rounds == program.cost().rounds
        assert len({getattr(r, key) for r in cost.rows}) == len(cost.rows)
    with pytest.raises(mpcc.MpccError, match="cannot be summed"):
        program.cost(by="colour")


def test_import_is_cheap():
    code = "import sys, mpcc, mpcc.cli.app; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=child.SLOW_START)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "prog.mpc"
    tiny.prefix_program().save(path)
    return str(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "--json", "--network", "wan"],
        ["inspect", "--ir", "graph"],
        ["inspect", "--ir", "ring"],
        ["inspect", "--by", "layer"],
        ["explain"],
        ["explain", "--json"],
        ["explain", "bert.encoder.layer.1.output.dense.weight"],
        ["explain", "bert.encoder.layer.1"],
        ["explain", "logits"],
        ["explain", "--alternatives"],
        ["explain", "--alternatives", "--json"],
    ],
    ids=" ".join,
)
def test_looking_at_a_program_needs_no_pytorch(bundle_path, arguments):
    """The real commands on a real bundle, in a process of their own, say what they say where torch is loaded."""
    code = (
        "import sys; from mpcc.cli.app import call; code = call(sys.argv[1:]);"
        "heavy = [m for m in ('torch', 'transformers', 'networkx', 'tokenizers') if m in sys.modules];"
        "print(heavy, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, arguments[0], bundle_path, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    if arguments == ["explain", "logits"]:
        assert done.returncode == 2 and "no node, weight or layer" in done.stderr
    else:
        assert done.returncode == 0 and len(done.stdout) > 80, done.stderr
