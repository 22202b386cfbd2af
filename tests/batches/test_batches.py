"""`mpcc run --batch`: several inputs in one inference, each answered as it would be alone."""

import functools
import io
import json
from pathlib import Path

import pytest
import torch

from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.compiler.errors import InputError
from tests.bundle import tiny_programs as tiny
from tests.runtime.mp_spdz_here import needs_mp_spdz


@functools.cache
def program(batch):
    return tiny.private_program() if batch == 1 else tiny.compiled(tiny.classifier(), batch_size=batch)


def ids(seed):
    return {name: value.tolist() for name, value in tiny.sample(seed=seed).items()}


def run(monkeypatch, capsys, samples, *options, batch=2, engine="emulator"):
    """What `mpcc run --json` prints, the inputs coming from standard input."""
    monkeypatch.setattr(files, "load", lambda path: program(batch))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(samples)))
    code = cli.call(["run", "prog.mpc", "--input", "-", "--engine", engine, "--json", *options])
    done = capsys.readouterr()
    return code, done.out, done.err


def logits(out):
    return torch.tensor([answer["outputs"]["logits"] for answer in json.loads(out)])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_each_input_has_its_own_answer(monkeypatch, capsys, count):
    """Also the last one of an odd number, whose batch is filled up."""
    samples = [ids(seed) for seed in range(count)]
    code, out, err = run(monkeypatch, capsys, samples, "--batch", "2")
    assert code == 0, err
    with torch.no_grad():
        want = [tiny.classifier()(**{k: torch.tensor(v) for k, v in sample.items()}).logits for sample in samples]
    assert (logits(out) - torch.stack(want)).abs().max() < 0.02
    assert all(len(answer["labels"]["logits"]) == 1 for answer in json.loads(out))


@pytest.mark.slow
def test_a_batch_takes_the_rounds_of_one():
    alone, together = program(1).cost(), program(2).cost()
    assert together.rounds < 1.2 * alone.rounds and together.bytes_online < 2.1 * alone.bytes_online


@pytest.mark.parametrize(
    ("batch", "options", "text"),
    [
        (1, ("--batch", "2"), "takes 1 at a time, not 2 inputs in one inference; compile it with --batch-size 2"),
        (2, ("--batch", "3"), "takes 2 at a time, not 3"),
        (2, ("--batch", "0"), "--batch"),
    ],
)
def test_another_number_than_compiled(monkeypatch, capsys, batch, options, text):
    code, out, err = run(monkeypatch, capsys, [ids(0)] * 2, *options, batch=batch)
    assert code == 2 and text in err and not out


def test_an_input_that_does_not_fit(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, [ids(0), {"input_ids": [[1]]}], "--batch", "2")
    assert code == 2 and "attention_mask" in err


# ** standard input **
def test_lines_are_read_like_a_list(monkeypatch):
    for text in ('{"text": "a"}\n\n{"text": "b"}\n', '[{"text": "a"}, {"text": "b"}]'):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert files.read_inputs(Path("-")) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("text", ["", "nonsense", '{"text": "a"}\nnonsense', "3", "[]"])
def test_nonsense_on_standard_input(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InputError, match="standard input"):
        files.read_inputs(Path("-"))


@needs_mp_spdz
def test_three_parties(monkeypatch, capsys):
    samples = [ids(seed) for seed in range(3)]
    code, out, err = run(monkeypatch, capsys, samples, "--batch", "2", engine="mp-spdz")
    assert code == 0, err
    clear = run(monkeypatch, capsys, samples, "--batch", "2")[1]
    assert (logits(out) - logits(clear)).abs().max() < 0.01 and len(logits(out)) == 3
