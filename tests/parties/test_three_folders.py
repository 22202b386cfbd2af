"""Three `mpcc party` processes in three folders, each with nothing but its own part, on a real MP-SPDZ."""

import json
import os
import signal
import socket
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from deployed import LIMIT, ROLES, Deployed, program
from fake_home import processes_below, soon
from mp_spdz_here import needs_mp_spdz

from mpcc.runtime.parties.keys import fingerprint, make_identity
from tests.bundle import tiny_programs as tiny

SAMPLES = [tiny.sample(seed=seed) for seed in range(3)]
CLIENT = ("--input", "in.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The deployment, with shares stored by three processes."""
    found = Deployed(tmp_path_factory.mktemp("deployed"), program())
    inputs = [{name: value.tolist() for name, value in sample.items()} for sample in SAMPLES]
    (found.at("client") / "in.json").write_text(json.dumps(inputs))
    done = found.run("--provision", "--state", "state", "--json")
    assert all(code == 0 for code, _, _ in done.values()), done
    found.provisioned = {role: json.loads(out) for role, (_, out, _) in done.items()}
    return found


@pytest.fixture
def deployed(place):
    """The same, with fresh ports; afterwards nothing runs and no working folder is left."""
    place.give_keys()
    yield place
    place.kill()
    assert soon(lambda: not processes_below(place.folder))
    assert not [p for role in ROLES for p in (place.at(role) / "tmp").iterdir()]


def answers(out):
    return [np.array(entry["outputs"]["logits"]) for entry in json.loads(out)["answers"]]


def works(deployed, *options):
    """A run with the stored shares, and what each role said."""
    done = deployed.run("--state", "state", "--json", *options, client=CLIENT)
    assert all(code == 0 for code, _, _ in done.values()), done
    for got, sample in zip(answers(done["client"][1]), SAMPLES, strict=True):
        want = program().run(sample, engine="emulator").outputs["logits"]
        assert np.abs(got - want.numpy()).max() < 0.01
    return {role: json.loads(out) for role, (_, out, _) in done.items()}


# ** what works **
@needs_mp_spdz
def test_many_inferences_after_one_provisioning(deployed):
    """The weights are sent once; each inference sends what was estimated and no weight."""
    weights = program().bundle.manifest.private_elements
    assert [deployed.provisioned[role]["bytes"] for role in ROLES] == [0, 8 * weights, 0]
    said, cost = works(deployed), program().cost()
    for player, role in enumerate(ROLES):
        assert said[role]["weights_bytes"] == 0 and len(said[role]["inferences"]) == len(SAMPLES)
        for one in said[role]["inferences"]:
            assert one["bytes_by_party"] == pytest.approx([cost.bytes_by_party[player]], rel=0.02)
    assert sum(said[role]["inferences"][1]["input_bytes"] for role in ROLES) == cost.input_bytes
    assert "answers" not in said["provider"] and "answers" not in said["helper"]


@needs_mp_spdz
def test_nobody_has_anothers_part(deployed):
    """Every file of every folder is searched, working folders and shares as well."""
    said = deployed.run("--json", "--state", "state", client=CLIENT, MPCC_KEEP_WORK="1")
    files = {role: [p.read_bytes() for p in deployed.at(role).rglob("*") if p.is_file()] for role in ROLES}
    for role in ROLES:
        files[role] += [text.encode() for text in said[role][1:]]
        for work in (deployed.at(role) / "tmp").iterdir():
            os.system(f"rm -r {work}")
    bundle = program().bundle
    weights = [t.ravel() for t in bundle.provider.values() if t.size >= 4]
    stream = program().provider_stream()
    marks = [w[:4].astype("<f4").tobytes() for w in weights]
    marks += [stream[p.position : p.position + 3].tobytes() for p in bundle.manifest.private_weights]
    assert marks and holds(files["provider"], marks) == len(marks) - len(bundle.manifest.private_weights)
    assert not holds(files["client"], marks) and not holds(files["helper"], marks)
    inputs = [program().client_stream(sample) for sample in SAMPLES]
    secrets = [part[-4:].tobytes() for part in inputs] + [json.dumps(SAMPLES[0]["input_ids"].tolist())[2:-2].encode()]
    logits = [repr(v).encode() for one in answers(said["client"][1]) for v in one.ravel().tolist()]
    assert holds(files["client"], logits) == len(logits) and holds(files["client"], secrets[-1:])
    (output,) = bundle.manifest.outputs
    received = np.round(np.array(answers(said["client"][1])).ravel() * 2**output.frac_bits).astype("<i8")
    raw = [received[i : i + 2].tobytes() for i in range(0, len(received), 2)]
    assert holds(files["client"], raw) == len(raw)
    known = [p.read_bytes() for p in (deployed.folder / "prog.mpcc").iterdir() if p.is_file()]
    logits = [text for text in logits if not holds(known, [text])]  # a constant of the program may look like one
    assert logits
    for role in ("provider", "helper"):
        assert not holds(files[role], secrets + logits + raw)
        assert not list(deployed.at(role).rglob("client")) and not list(deployed.at(role).rglob("tokenizer.json"))


def holds(files, marks):
    """How many of the marks stand in some file."""
    return sum(any(mark in content for content in files) for mark in marks)


@needs_mp_spdz
def test_without_stored_shares(deployed):
    done = deployed.run("--json", client=CLIENT)
    assert all(code == 0 for code, _, _ in done.values()), done
    assert len(answers(done["client"][1])) == len(SAMPLES)


@needs_mp_spdz
def test_requests_one_by_one(deployed):
    """Each answer comes before the next request is made."""
    for role in ROLES:
        deployed.start(role, "--state", "state", *(("--input", "-") if role == "client" else ()))
    client = deployed.running["client"]
    for sample in SAMPLES:
        client.stdin.write(json.dumps({name: value.tolist() for name, value in sample.items()}) + "\n")
        client.stdin.flush()
        got = np.array(json.loads(client.stdout.readline())["outputs"]["logits"])
        assert np.abs(got - program().run(sample, engine="emulator").outputs["logits"].numpy()).max() < 0.01
    assert [code for code, _, _ in deployed.finish().values()] == [0, 0, 0]


# ** what fails in the middle **
def in_the_middle(deployed):
    """All roles, after the first answer; the client would have another request."""
    for role in ROLES:
        deployed.start(role, "--state", "state", *(("--input", "-") if role == "client" else ()))
    client = deployed.running["client"]
    client.stdin.write(json.dumps({name: value.tolist() for name, value in SAMPLES[0].items()}) + "\n")
    client.stdin.flush()
    assert "logits" in client.stdout.readline()


def error(done, role, text):
    """The role failed as an engine does, with one line that says `text`."""
    code, out, err = done[role]
    assert code == 3 and text in err and err.count("\n") == 1 and err.startswith("mpcc: error: "), (code, out, err)


@needs_mp_spdz
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
    leftovers(deployed, victim)
    works(deployed)


def leftovers(deployed, role):
    """The watchdog of a killed mpcc removes its working folder."""
    assert soon(lambda: not list((deployed.at(role) / "tmp").iterdir()))


@needs_mp_spdz
@pytest.mark.parametrize("victim", ROLES)
def test_interrupted(deployed, victim):
    in_the_middle(deployed)
    deployed.running[victim].send_signal(signal.SIGINT)
    assert soon(lambda: all(p.poll() is not None for p in deployed.running.values()), LIMIT)
    done = deployed.finish()
    assert done[victim][0] == 130 and "interrupted" in done[victim][2]
    for role in set(ROLES) - {victim}:
        error(done, role, f"the {victim} has closed its connection")
    works(deployed)


@needs_mp_spdz
def test_a_party_never_starts(deployed):
    for role in ("client", "provider"):
        deployed.start(role, "--state", "state", "--wait", "3", *(CLIENT if role == "client" else ()))
    done = deployed.finish()
    for role in done:
        error(done, role, "did not connect within 3 s; is every other party started?")


@needs_mp_spdz
def test_a_port_is_in_use(deployed):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", deployed.ports["client"]))
        taken.listen()
        done = deployed.run("--state", "state", "--wait", "10", client=CLIENT)
    error(done, "client", f"Address already in use; at 127.0.0.1:{deployed.ports['client']}")
    assert done["provider"][0] == done["helper"][0] == 3


@needs_mp_spdz
def test_mixed_shares(deployed):
    """Shares of two provisionings are noticed before anything is computed."""
    other = Path("other")
    done = deployed.run("--provision", "--state", str(other))
    assert all(code == 0 for code, _, _ in done.values())
    for role in ROLES:
        deployed.start(role, "--state", "state" if role == "helper" else "other", *(CLIENT if role == "client" else ()))
    done = deployed.finish()
    assert any("the stored shares of the parties are not of one provisioning" in err for _, _, err in done.values())
    assert all(code == 3 for code, _, _ in done.values()) and not done["client"][1]


@needs_mp_spdz
def test_a_truncated_share_file(deployed):
    path = deployed.at("helper") / "state" / "helper" / "Persistence" / "Transactions-P2.data"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    try:
        deployed.start("helper", "--state", "state")
        error(deployed.finish(), "helper", "the file of shares is truncated")
    finally:
        path.write_bytes(whole)
    works(deployed)


# ** certificates **
@needs_mp_spdz
def test_an_expired_certificate(deployed):
    kept = deployed.identities["helper"]
    deployed.identities["helper"] = make_identity(2, timedelta(days=-1))
    deployed.give_keys()
    try:
        for role in ROLES:
            deployed.start(role, "--state", "state", *(CLIENT if role == "client" else ()))
        done = deployed.finish()
        for role in ROLES:
            error(done, role, "the certificate of the helper expired on")
    finally:
        deployed.identities["helper"] = kept


@needs_mp_spdz
def test_a_foreign_certificate_by_fingerprint(deployed):
    keys = deployed.at("client") / "keys"
    (keys / "helper.pem").write_bytes(make_identity(2).certificate)
    deployed.start("client", "--state", "state", *CLIENT)
    error(deployed.finish(), "client", "the certificate of the helper is not the one expected")


@needs_mp_spdz
def test_a_foreign_certificate_in_the_handshake(deployed):
    """A helper whose files agree with each other, but whose certificate the others do not know."""
    foreign, keys = make_identity(2), deployed.at("helper") / "keys"
    (keys / "helper.pem").write_bytes(foreign.certificate)
    (keys / "helper.key").write_bytes(foreign.key)
    hosts = deployed.entry("client") + deployed.entry("provider")
    (keys / "hosts.toml").write_text(hosts + deployed.entry("helper", fingerprint(foreign.certificate)))
    done = deployed.run("--state", "state", "--wait", "15", client=CLIENT)
    assert all(code == 3 for code, _, _ in done.values()) and not done["client"][1], done
    deployed.give_keys()
    works(deployed)
