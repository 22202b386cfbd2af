"""What a role received is compared with what it makes itself; nothing that was edited is run."""

import hashlib
import json
from dataclasses import replace

import pytest

import mpcc
from mpcc.cli import app as cli
from mpcc.compiler.errors import BundleError, MpccError
from mpcc.loading import load
from mpcc.runtime.mp_spdz.emitted import emitted
from mpcc.runtime.spu.code import code_of
from tests.bundle import tiny_programs as tiny


@pytest.fixture
def saved(tmp_path):
    tiny.prefix_program().save(tmp_path / "prog.mpc")
    return tmp_path / "prog.mpc"


def with_digest(program, name, content):
    """Replace a file, and its digest as the bundle's author would."""
    folder = program.with_suffix(".mpcc")
    path = program if name == "source" else folder / name
    path.write_text(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["digests"][name] = hashlib.sha256(content.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_run_is_made_here(saved):
    program = load(saved)
    assert emitted(program.deployment()).source == program.source


@pytest.mark.parametrize(
    "line",
    ["import os; os.system('true')", "print_ln('%s', input_0[0].reveal())", "# nothing but a comment"],
)
def test_an_edited_source_is_refused(saved, line):
    with_digest(saved, "source", saved.read_text() + line + "\n")
    with pytest.raises(BundleError, match=r"not the one that its ring\.ir says"):
        emitted(load(saved, ()).deployment())


def test_another_version_of_the_program_is_refused():
    program = tiny.prefix_program().deployment()
    with pytest.raises(BundleError, match="edited"):
        emitted(replace(program, source=program.source.replace("sint", "cint", 1)))


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('to="client"', 'to="provider"', "opened to 'provider'"),
        ('to="client"', 'to="everybody"', "opened to 'everybody'"),
        ('role="client"', 'role="provider"', "shared by 'provider'"),
    ],
)
def test_an_edited_ring_program_is_refused(saved, old, new, said):
    text = (saved.with_suffix(".mpcc") / "ring.ir").read_text()
    assert old in text
    with_digest(saved, "ring.ir", text.replace(old, new, 1))
    with pytest.raises(BundleError, match=said):
        load(saved, ())


def test_an_input_of_the_client_is_not_made_public(tmp_path):
    """The manifest, which the client looks at, calls an input secret that both programs tell to everybody."""
    program = tiny.compiled(
        tiny.frozen_prefix(), partition=mpcc.Partition.from_base(tiny.base_model()), public_inputs=["attention_mask"]
    )
    path = tmp_path / "prog.mpc"
    program.save(path)
    load(path, {"client"})
    manifest = json.loads((path.with_suffix(".mpcc") / "manifest.json").read_text())
    (mask,) = (i for i in manifest["inputs"] if i["name"] == "attention_mask")
    assert mask["role"] == "public"
    mask["role"] = "client"
    (path.with_suffix(".mpcc") / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="would tell everybody of the secret input attention_mask"):
        load(path, {"client"})


def test_both_programs_say_the_same_of_who_may_read(saved):
    mpc = (saved.with_suffix(".mpcc") / "mpc.ir").read_text()
    line = next(line for line in mpc.splitlines() if line.strip().startswith("%index_keep = input"))
    with_digest(saved, "mpc.ir", mpc.replace(line, line.replace('role="client"', 'role="public"')))
    with pytest.raises(BundleError, match="who may read what is shared"):
        load(saved, ())


def test_a_public_input_needs_the_clients_word(tmp_path, capsys, monkeypatch):
    program = tiny.prefix_program()
    inputs = [replace(i, role="public") for i in program.bundle.manifest.inputs if i.name == "attention_mask"]
    inputs = [i for i in program.bundle.manifest.inputs if i.name != "attention_mask"] + inputs
    bundle = replace(program.bundle, manifest=replace(program.bundle.manifest, inputs=tuple(inputs)))
    monkeypatch.setattr("mpcc.loading.load_bundle", lambda path, roles: bundle)
    monkeypatch.setattr("mpcc.runtime.engine.Engine.check", lambda self: None)
    monkeypatch.setattr("mpcc.runtime.mp_spdz.engine.MpSpdz.check", lambda self: None)
    monkeypatch.setattr("mpcc.runtime.parties.hosts.site_of", lambda *arguments: None)
    (tmp_path / "in.json").write_text("{}")
    command = ["party", "prog.mpc", "--role", "client", "--hosts", "h.toml", "--input", str(tmp_path / "in.json")]
    assert cli.call(command) == 2
    said = capsys.readouterr().err
    assert "tells the input attention_mask to every party" in said and "--public-input attention_mask" in said
    assert cli.call([*command, "--public-input", "attention_mask"]) == 2  # now it is the input that does not fit
    assert "tells the input" not in capsys.readouterr().err


GRAPH_EDITS = [
    ("gelu(", "tanh(", "attributes"),
    ("gelu(", "reveal(", "unknown operation"),
    (" : f32[1,8,32] @", " : f32[1,8,31] @", "shape|type|is f32"),
]


@pytest.mark.parametrize("old, new, said", GRAPH_EDITS)
def test_an_edited_graph_of_the_client_is_not_run(saved, old, new, said):
    text = (saved.with_suffix(".mpcc") / "client" / "graph.ir").read_text()
    assert old in text
    with_digest(saved, "client/graph.ir", text.replace(old, new, 1))
    with pytest.raises(BundleError, match=said):
        load(saved, {"client"}).prepared(tiny.sample())


def edited_inside(saved, old, new):
    text = (saved.with_suffix(".mpcc") / "mpc.ir").read_text()
    assert old in text
    with_digest(saved, "mpc.ir", text.replace(old, new, 1))


@pytest.mark.parametrize("old, new", [("gelu(", "reveal("), ("gelu(%", "gelu(%index_keep, %")])
def test_the_client_looks_at_the_graph_inside_mpc(saved, old, new):
    edited_inside(saved, old, new)
    with pytest.raises(BundleError, match=r"mpc\.ir"):
        load(saved, {"client"}).prepared(tiny.sample())


def test_what_spu_has_no_form_of_is_refused(saved):
    edited_inside(saved, "gelu(", "reveal(")
    with pytest.raises(MpccError, match="reveal"):
        code_of(load(saved, ()).deployment())
