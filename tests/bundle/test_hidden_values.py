"""Weights that hide where nobody looks: none is in a file that others get, and the program still computes right."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import mpcc
from mpcc.compiler.errors import MpccError

TEMPERATURE = 0.7351234


class Quantised(nn.Module):
    """An int8 weight with its scale, in one of three places."""

    def __init__(self, place: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        weight = torch.randint(-127, 128, (6, 8), generator=generator, dtype=torch.int8)
        if place == "attribute":
            self.weight = weight
        else:
            self.register_buffer("weight", weight, persistent=place == "buffer")
        self.scale = torch.tensor(0.0123456)
        self.first = nn.Linear(4, 8)

    def forward(self, x):
        return torch.nn.functional.linear(self.first(x), self.weight.float() * self.scale)


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.temp = torch.tensor(TEMPERATURE)

    def forward(self, x):
        return self.first(x) * self.temp


class Shuffled(nn.Module):
    """Looks its ids up in a secret table first."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(200, generator=torch.Generator().manual_seed(5))
        self.table = nn.Embedding(200, 4)

    def forward(self, ids):
        return self.table(self.order[ids]).sum(1)


def compiled(model, **inputs):
    torch.manual_seed(0)
    return mpcc.compile(model, inputs, calibration=[inputs])


def shared_files(program, folder):
    program.save(folder / "prog.mpc")
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "provider" not in p.parts}


def assert_not_in(files, tensor: torch.Tensor) -> None:
    """No window of the values, in any type they could be stored in."""
    for kind in {tensor.dtype, torch.int8, torch.int32, torch.int64, torch.float32, torch.float64}:
        try:
            raw = tensor.to(kind).numpy().tobytes()
        except RuntimeError:
            continue
        if len(raw) < 4 or not any(raw):
            continue
        for start in range(0, max(1, len(raw) - 15), 16):
            window = raw[start : start + 16]
            assert not [n for n, content in files.items() if len(window) > 3 and window in content]


@pytest.mark.parametrize("place", ["attribute", "buffer", "hidden buffer"])
def test_a_quantised_weight(tmp_path, place):
    model = Quantised(place).eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    program = compiled(model, x=x)
    visible = {e.tensor: e.visibility for e in program.bundle.manifest.evidence}
    assert visible["weight"] == visible["scale"] == "provider"
    files = shared_files(program, tmp_path)
    assert_not_in(files, model.weight)
    assert_not_in(files, model.weight.float() * model.scale)
    got = program.run({"x": x}, engine="emulator").outputs["output"]
    torch.testing.assert_close(got.float(), model(x).detach(), rtol=0, atol=2e-2)


def test_a_temperature(tmp_path):
    model = Tempered().eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    program = compiled(model, x=x)
    (found,) = [e for e in program.bundle.manifest.evidence if e.tensor == "temp"]
    assert found.visibility == "provider"
    files = shared_files(program, tmp_path)
    assert_not_in(files, model.temp)
    for content in files.values():
        assert b"0.7351" not in content
    got = program.run({"x": x}, engine="emulator").outputs["output"]
    torch.testing.assert_close(got.float(), model(x).detach(), rtol=0, atol=1e-2)


def test_a_secret_table_of_ids_is_refused():
    ids = torch.randint(0, 200, (1, 3), generator=torch.Generator().manual_seed(1))
    with pytest.raises(MpccError) as caught:
        compiled(Shuffled().eval(), ids=ids)
    assert "MPC" in str(caught.value)


def noisy(seed: int | None) -> nn.Module:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)).eval()
    if seed is not None:
        noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            model[4].weight.add_(1e-5 * noise)
    return model


def test_a_little_noise_on_a_private_weight_leaves_no_fingerprint(tmp_path):
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for i, seed in enumerate((None, 1, 2)):
        (tmp_path / str(i)).mkdir()
        program = mpcc.compile(noisy(seed), [x], calibration=[{"input": x}])
        found.append(shared_files(program, tmp_path / str(i)))
    assert found[0] == found[1] == found[2]
    failure = json.loads(found[0]["manifest.json"])["failure_probability"]
    assert failure > 0 and torch.frexp(torch.tensor(failure, dtype=torch.float64))[0] == 0.5
