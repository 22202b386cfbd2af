"""The provider answers so many requests a session and no more; three real processes, which tell the label only."""

import json

import pytest
import torch
from deployed import ROLES, Deployed
from mp_spdz_here import HOME

import mpcc
from mpcc.cli import app as cli
from tests.bundle import tiny_programs as tiny

SAMPLES = [{"input_ids": tiny.sample(seed=seed)["input_ids"].tolist()} for seed in range(3)]
MOST = 2
SAID = f"the provider answers {MOST} requests a session"
ENGINES = [
    pytest.param("mp-spdz", marks=[pytest.mark.mp_spdz, pytest.mark.skipif(not HOME, reason="there is no MP-SPDZ")]),
    pytest.param("spu", marks=[pytest.mark.slow, pytest.mark.spu]),
]


def model():
    torch.manual_seed(0)
    return tiny.Bag().eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    rules = mpcc.Partition.from_rules({"public": ["table.*"]})
    example = {"input_ids": torch.tensor(SAMPLES[0]["input_ids"])}
    program = mpcc.compile(model(), example, rules, calibrate_random=4, output="label")
    found = Deployed(tmp_path_factory.mktemp("deployed"), program)
    (found.at("client") / "in.json").write_text(json.dumps(SAMPLES))
    return found


@pytest.fixture
def deployed(place):
    place.give_keys()
    yield place
    place.kill()


def labels(count):
    with torch.no_grad():
        return [model()(torch.tensor(s["input_ids"])).argmax(-1).tolist() for s in SAMPLES[:count]]


def start(deployed, engine, *client):
    for role in ROLES:
        own = {"client": client, "provider": ("--max-requests", str(MOST))}.get(role, ())
        deployed.start(role, "--engine", engine, *own)


@pytest.mark.parametrize("engine", ENGINES)
def test_more_are_not_answered(deployed, engine):
    """What was answered is told; then one line and exit 3 for who asked for more."""
    start(deployed, engine, "--input", "in.json", "--json")
    done = deployed.finish(notes=True)
    code, out, err = done["client"]
    assert code == 3 and f"mpcc: error: {SAID}; 1 of yours have no answer" in err, done
    assert [one["outputs"] for one in json.loads(out)["answers"]] == [{"label": label} for label in labels(MOST)]
    for role in ("provider", "helper"):
        assert done[role][0] == 0 and SAID in done[role][2], done


@pytest.mark.parametrize("engine", ENGINES)
def test_who_speaks_line_by_line_is_not_asked_again(deployed, engine):
    """The session ends after the last answer, although the client's input is still open."""
    start(deployed, engine, "--input", "-")
    client = deployed.running["client"]
    for sample, label in zip(SAMPLES[:MOST], labels(MOST), strict=True):
        client.stdin.write(json.dumps(sample) + "\n")
        client.stdin.flush()
        assert json.loads(client.stdout.readline())["outputs"] == {"label": label}
    assert client.wait(60) == 0
    done = deployed.finish(notes=True)
    assert all(code == 0 and SAID in err for code, _, err in done.values()), done


@pytest.mark.parametrize("role", ["client", "helper"])
def test_the_count_is_the_providers(role, capsys):
    given = ["--input", "in.json"] if role == "client" else []
    assert cli.call(["party", "p.mpc", "--role", role, "--hosts", "h", "--max-requests", "3", *given]) == 2
    assert "--max-requests is for the provider" in capsys.readouterr().err
