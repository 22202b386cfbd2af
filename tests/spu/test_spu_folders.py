"""Three `mpcc party --engine spu` processes in three folders, each with nothing but its own part."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
from datetime import timedelta

import numpy as np
import pytest
from deployed import LIMIT, ROLES, Deployed, program
from fake_home import processes_below, soon

from mpcc.runtime.parties.keys import fingerprint, make_identity
from tests.bundle import tiny_programs as tiny

SAMPLES = [tiny.sample(seed=seed) for seed in range(3)]
SPU, CLIENT = ("--engine", "spu"), ("--input", "in.json")
pytestmark = [pytest.mark.spu, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = Deployed(tmp_path_factory.mktemp("deployed"), program())
    inputs = [{name: value.tolist() for name, value in sample.items()} for sample in SAMPLES]
    (found.at("client") / "in.json").write_text(json.dumps(inputs))
    return found


@pytest.fixture
def deployed(place):
    """With fresh ports; afterwards nothing runs and no working folder is left."""
    place.give_keys()
    yield place
    place.kill()
    assert soon(lambda: not processes_below(place.folder))
    assert not [p for role in ROLES for p in (place.at(role) / "tmp").iterdir()]


def wanted(sample):
    """PyTorch's logits for a sample."""
    import torch

    with torch.no_grad():
        return tiny.classifier()(**sample).logits.numpy()


def answers(done):
    return [np.array(entry["outputs"]["logits"]) for entry in json.loads(done["client"][1])["answers"]]


def works(deployed, **environment):
    done = deployed.run(*SPU, "--json", client=CLIENT, **environment)
    assert all(code == 0 for code, _, _ in done.values()), done
    for got, sample in zip(answers(done), SAMPLES, strict=True):
        assert np.abs(got - wanted(sample)).max() <= 5e-3
    return done


def start_all(deployed, *options, client=CLIENT):
    for role in ROLES:
        deployed.start(role, *SPU, *options, *(client if role == "client" else ()))


def error(done, role, text):
    """The role failed as an engine does, with one line that says `text`."""
    code, out, err = done[role]
    assert (code, out, err.count("\n")) == (3, "", 1) and text in err and err.startswith("mpcc: error: "), done[role]


# ** what works **
def test_a_session(deployed):
    """Three answers equal PyTorch's; the weights are sent once, by the provider, and nobody else prints an output."""
    said = {role: json.loads(out) for role, (_, out, _) in works(deployed).items()}
    for player, role in enumerate(ROLES):
        assert said[role]["players"] == [player] and len(said[role]["inferences"]) == len(SAMPLES)
        assert (said[role]["weights_bytes"] > 0) is (role == "provider")
        sent = [one["bytes_online"] for one in said[role]["inferences"]]
        assert min(sent) > 0 and max(sent) < 1.2 * min(sent)
    assert said["provider"]["weights_bytes"] >= 2 * 8 * program().bundle.manifest.private_elements
    assert "answers" not in said["provider"] and "answers" not in said["helper"]


def test_nobody_has_anothers_part(deployed):
    """Every file of every folder is searched, working folders as well."""
    said = works(deployed, MPCC_KEEP_WORK="1")
    files = {role: [p.read_bytes() for p in deployed.at(role).rglob("*") if p.is_file()] for role in ROLES}
    for role in ROLES:
        files[role] += [text.encode() for text in said[role][1:]]
        for work in (deployed.at(role) / "tmp").iterdir():
            shutil.rmtree(work)
    weights = [t.astype("<f4") for t in program().bundle.provider.values() if t.size >= 4]
    marks = [w.ravel()[:4].tobytes() for w in weights]
    assert holds(files["provider"], marks) == len(marks)
    assert not holds(files["client"], marks) and not holds(files["helper"], marks)
    hidden = [
        v.numpy().ravel() for s in SAMPLES for v in program().prepared(s).values.values() if v.is_floating_point()
    ]
    secrets = [h.astype(kind).tobytes() for h in hidden if h.size >= 16 and h.any() for kind in ("<f4", "<f8")]
    results = np.array(answers(said)).astype(np.float32)
    secrets += [r.astype(kind).tobytes() for r in results.reshape(len(SAMPLES), -1) for kind in ("<f4", "<f8")]
    secrets += [repr(v).encode() for v in results.astype(float).ravel().tolist()]
    secrets += [json.dumps(SAMPLES[0]["input_ids"].tolist())[2:-2].encode()]
    assert holds(files["client"], secrets) > 2 * len(SAMPLES)
    assert not holds(files["provider"], secrets) and not holds(files["helper"], secrets)


def holds(files, marks):
    """How many of the marks stand in some file."""
    return sum(any(mark in content for content in files) for mark in marks)


def test_requests_one_by_one(deployed):
    """Each answer comes before the next request is made."""
    start_all(deployed, client=("--input", "-"))
    client = deployed.running["client"]
    for sample in SAMPLES:
        client.stdin.write(json.dumps({name: value.tolist() for name, value in sample.items()}) + "\n")
        client.stdin.flush()
        got = np.array(json.loads(client.stdout.readline())["outputs"]["logits"])
        assert np.abs(got - wanted(sample)).max() <= 5e-3
    assert [code for code, _, _ in deployed.finish().values()] == [0, 0, 0]


# ** what fails in the middle **
def in_the_middle(deployed):
    """All roles, after the first answer; the client would have another request."""
    start_all(deployed, client=("--input", "-"))
    client = deployed.running["client"]
    client.stdin.write(json.dumps({name: value.tolist() for name, value in SAMPLES[0].items()}) + "\n")
    client.stdin.flush()
    assert "logits" in client.stdout.readline()


@pytest.mark.parametrize("victim", ROLES)
def test_a_party_is_killed(deployed, victim):
    """mpcc itself is killed: its party goes too, and the others end by themselves."""
    in_the_middle(deployed)
    deployed.running[victim].kill()
    assert soon(lambda: all(p.poll() is not None for p in deployed.running.values()), LIMIT)
    done = deployed.finish(*(role for role in ROLES if role != victim))
    for role in done:
        error(done, role, f"the {victim} has closed its connection")
    deployed.kill()
    assert soon(lambda: not list((deployed.at(victim) / "tmp").iterdir()))


def test_interrupted(deployed):
    in_the_middle(deployed)
    deployed.running["helper"].send_signal(signal.SIGINT)
    assert soon(lambda: all(p.poll() is not None for p in deployed.running.values()), LIMIT)
    done = deployed.finish()
    assert done["helper"][0] == 130 and "interrupted" in done["helper"][2]
    for role in ("client", "provider"):
        error(done, role, "the helper has closed its connection")
    works(deployed)


def test_a_party_never_starts(deployed):
    for role in ("client", "provider"):
        deployed.start(role, *SPU, "--wait", "4", *(CLIENT if role == "client" else ()))
    done = deployed.finish()
    for role in done:
        error(done, role, "did not connect within 4 s; is every other party started?")


def test_a_port_is_in_use(deployed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", deployed.ports["client"]))
        taken.listen()
        done = deployed.run(*SPU, "--wait", "10", client=CLIENT)
    error(done, "client", f"Address already in use; at 127.0.0.1:{deployed.ports['client']}")
    assert done["provider"][0] == done["helper"][0] == 3


def test_another_program(deployed):
    """A helper with the part of another program is noticed before anything is shared."""
    bundle = deployed.at("helper") / "prog.mpcc"
    graph, manifest = (bundle / "mpc.ir").read_text(), (bundle / "manifest.json").read_text()
    other = graph.replace("gain=0.7", "gain=0.6")
    assert other != graph
    (bundle / "mpc.ir").write_text(other)
    try:
        deployed.start("helper", *SPU)
        code, _, err = deployed.finish()["helper"]
        assert code == 2 and "its digest is not the manifest's" in err and err.count("\n") == 1
        table = json.loads(manifest)
        table["digests"]["mpc.ir"] = hashlib.sha256(other.encode()).hexdigest()
        (bundle / "manifest.json").write_text(json.dumps(table))
        done = deployed.run(*SPU, "--wait", "20", client=CLIENT)
        assert all(code == 3 and not out for code, out, _ in done.values()), done
        error(done, "helper", "does not run the same program: ir, source differ; at the ")
        assert any("the helper does not run the same program" in done[role][2] for role in ("client", "provider"))
    finally:
        (bundle / "mpc.ir").write_text(graph)
        (bundle / "manifest.json").write_text(manifest)


# ** certificates **
def test_an_expired_certificate(deployed):
    kept = deployed.identities["helper"]
    deployed.identities["helper"] = make_identity(2, timedelta(days=-1))
    deployed.give_keys()
    try:
        start_all(deployed)
        done = deployed.finish()
        for role in ROLES:
            error(done, role, "the certificate of the helper expired on")
    finally:
        deployed.identities["helper"] = kept


def test_a_foreign_certificate_by_fingerprint(deployed):
    (deployed.at("client") / "keys" / "helper.pem").write_bytes(make_identity(2).certificate)
    deployed.start("client", *SPU, *CLIENT)
    error(deployed.finish(), "client", "the certificate of the helper is not the one expected")


def test_a_foreign_certificate_in_the_handshake(deployed):
    """A helper whose files agree with each other, but whose certificate the others do not know."""
    foreign, keys = make_identity(2), deployed.at("helper") / "keys"
    (keys / "helper.pem").write_bytes(foreign.certificate)
    (keys / "helper.key").write_bytes(foreign.key)
    hosts = deployed.entry("client") + deployed.entry("provider")
    (keys / "hosts.toml").write_text(hosts + deployed.entry("helper", fingerprint(foreign.certificate)))
    done = deployed.run(*SPU, "--wait", "15", client=CLIENT)
    assert all(code == 3 and not out for code, out, _ in done.values()), done
    error(done, "helper", "a party was turned away: who answers for the ")
    assert any("for their certificate; is every other" in done[role][2] for role in ("client", "provider"))


# ** mistakes **
def test_what_spu_does_not_have(deployed):
    for options, text in (
        (("--provision",), "stores no shares"),
        (("--state", "state"), "stores no shares"),
        (("--spu-protocol", "cheetah"), "has no role 'helper'"),
        (("--spu-protocol", "semi2k"), "must be trusted"),
    ):
        deployed.start("helper", *SPU, *options)
        code, _, err = deployed.finish()["helper"]
        assert code in (2, 3) and text in err and err.count("\n") == 1
    assert not list((deployed.at("helper") / "tmp").iterdir())
