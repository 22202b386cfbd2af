"""Three `mpcc party` processes in three folders, each with nothing but its own part, on a real MP-SPDZ."""

import json
import os

import numpy as np
import pytest
from deployed import ROLES, Deployed, program
from fake_home import processes_below, soon
from mp_spdz_here import needs_mp_spdz

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
