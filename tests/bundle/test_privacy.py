"""Nothing private leaves the provider's folder, and exactly what the evidence says is private."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import mpcc
from mpcc.compiler.fixed import encode
from tests.bundle import tiny_programs as tiny

WINDOW = 16
NUMBER = re.compile(r"-?\d+\.\d{5,}(?:e[+-]?\d+)?")


@pytest.fixture(scope="module", params=["private", "prefix", "lora"])
def case(request, tmp_path_factory):
    """(program, what everybody and the client may read)"""
    program = getattr(tiny, f"{request.param}_program")()
    folder = tmp_path_factory.mktemp(request.param)
    program.save(folder / "prog.mpc")
    shared = {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "provider" not in p.parts
    }
    return program, shared


def private_tensors(program):
    names = {e.tensor for e in program.bundle.manifest.evidence if e.visibility != "public"}
    return {n: t for n, t in program.bundle.provider.items() if n in names or n.startswith("derived.")}


def test_no_window_of_a_private_weight_is_in_a_shared_file(case):
    program, shared = case
    searched = 0
    for name, tensor in private_tensors(program).items():
        if tensor.dtype.kind != "f":
            continue
        values = tensor
        for raw in (values.tobytes(), encode(values, 16).tobytes()):
            step = max(WINDOW, len(raw) // 40 // WINDOW * WINDOW)
            for start in range(0, len(raw) - WINDOW + 1, step):
                searched += 1
                found = [f for f, content in shared.items() if raw[start : start + WINDOW] in content]
                assert not found, f"bytes of {name} are in {found}"
    assert searched > 300


def test_search_would_find_them(case):
    program, _ = case
    content = b"x" + next(t for t in private_tensors(program).values() if t.size > 8).tobytes()
    tensor = next(t for t in private_tensors(program).values() if t.size > 8)
    assert tensor.tobytes()[:WINDOW] in content


def test_no_number_in_a_shared_text_is_a_private_weight(case):
    program, shared = case
    secret = np.concatenate([t.reshape(-1) for t in private_tensors(program).values() if t.dtype.kind == "f"])
    known = set(np.float32(secret).tolist())
    for name, content in shared.items():
        if name.endswith((".ir", ".json", ".mpc")):
            numbers = {float(np.float32(text)) for text in NUMBER.findall(content.decode())}
            assert not numbers & known, name


def test_calibrated_ranges_stay_here(case):
    _, shared = case
    for name, content in shared.items():
        if name.endswith("graph.ir"):
            assert b" range=" not in content and b" stats=" not in content


def test_every_bound_of_an_input_is_a_power_of_two(case):
    program, _ = case
    for node, _ in program.bundle.ring.walk():
        if node.op in ("input", "param") and node.type.frac_bits:
            assert np.log2(node.type.bound).is_integer()


def test_no_digest_of_private_data_is_shared(case):
    _, shared = case
    manifest = json.loads(shared["prog.mpcc/manifest.json"])
    assert not [name for name in manifest["digests"] if "provider" in name]


def test_client_has_no_private_tensor(case):
    program, _ = case
    private = {e.tensor for e in program.bundle.manifest.evidence if e.visibility != "public"}
    assert not private & set(program.bundle.client.tensors) and not private & set(program.bundle.public)


def test_provider_has_nothing_that_only_the_client_needs():
    program = tiny.prefix_program()
    in_mpc = {p.tensor for p in program.bundle.manifest.private_weights}
    assert set(program.bundle.provider) == in_mpc
    assert not in_mpc & set(program.bundle.client.tensors)


def test_names_of_tensors_are_not_in_the_source(case):
    program, _ = case
    for evidence in program.bundle.manifest.evidence:
        assert evidence.tensor not in program.source


def weights_of(program):
    """The evidence without the constants that the architecture implies, which are exactly those of every BERT."""
    evidence = program.bundle.manifest.evidence
    constants = {e.tensor.rpartition(".")[2] for e in evidence if e.reason.startswith("implied by the architecture")}
    assert constants == {"position_ids", "token_type_ids"}
    return [e for e in evidence if e.tensor.rpartition(".")[2] not in constants]


def test_full_fine_tune_without_base_has_no_public_weight():
    evidence = weights_of(tiny.private_program())
    assert evidence and all(e.visibility == "provider" for e in evidence)
    assert tiny.private_program().bundle.client.tensors == {}


@pytest.mark.slow
def test_full_fine_tune_with_base_has_no_public_weight():
    program = tiny.compiled(tiny.classifier(9), partition=mpcc.Partition.from_base(tiny.base_model()))
    assert all(e.visibility == "provider" for e in weights_of(program))


def test_lora_counts_are_those_of_its_structure():
    model, program = tiny.lora(), tiny.lora_program()
    want = {n for n, _ in model.named_parameters() if "lora_" in n or "classifier" in n}
    want = {n for n in want if "original_module" not in n}
    private = {e.tensor for e in program.bundle.manifest.evidence if e.visibility != "public"}
    assert {n.removeprefix("base_model.model.") for n in private} == {n.removeprefix("base_model.model.") for n in want}
    layers, modules = tiny.CONFIG.num_hidden_layers, 2
    assert sum("lora_" in n for n in private) == layers * modules * 2
    public = [e for e in weights_of(program) if e.visibility == "public"]
    assert len(public) == len(list(tiny.base_model().parameters()))
    # the embeddings are the client's: no token leaves it, only the first layer's input is shared
    assert any("word_embeddings" in n for n in program.bundle.client.tensors)


def test_frozen_prefix_counts_are_those_of_its_structure():
    program = tiny.prefix_program()
    frozen = [n for n, _ in tiny.frozen_prefix().named_parameters() if ".embeddings." in n or ".layer.0." in n]
    changed = [n for n, _ in tiny.frozen_prefix().named_parameters() if n not in frozen]
    evidence = program.bundle.manifest.evidence
    assert {e.tensor for e in evidence if e.visibility == "provider"} == set(changed)
    assert set(frozen) <= {e.tensor for e in evidence if e.visibility == "public"}
    assert set(frozen) - set(program.bundle.client.tensors) <= {n for n in frozen if "embeddings" in n}
    in_mpc = {p.tensor for p in program.bundle.manifest.private_weights}
    assert all(n in changed or n.startswith("derived.") for n in in_mpc)
    assert not set(program.bundle.public) & set(changed)


def test_explain_says_why():
    program = tiny.prefix_program()
    assert "byte-equal to" in program.explain("bert.encoder.layer.0.output.dense.weight")[0]
    assert "differs from" in program.explain("bert.encoder.layer.1.output.dense.weight")[0]
    secret = next(n for n in program.bundle.graph.operations() if n.origin.layer == "bert.encoder.layer.1.output.dense")
    text = "\n".join(program.explain(secret.name))
    assert "is secret, computed at mpc" in text and "differs from" in text and "the client's input" in text
    mine = next(n for n in program.bundle.graph.operations() if n.origin.layer == "bert.encoder.layer.0.output.dense")
    assert "is client, computed at client" in program.explain(mine.name)[0]
    assert len(program.explain("bert.encoder.layer.1.attention")) > 3
    with pytest.raises(mpcc.MpccError, match="near: "):
        program.explain(secret.name + "x")
