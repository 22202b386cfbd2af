"""Every mistake ends in one clear line, exit code 2, and nothing written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import child
import pytest
import torch

from mpcc.cli import app as cli
from mpcc.cli import files
from mpcc.compiler.bundle import files as bundle_files
from mpcc.compiler.errors import EngineError
from tests.bundle import tiny_programs as tiny


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A program, its model file, and a base that is not its base."""
    folder = tmp_path_factory.mktemp("originals")
    tiny.private_program().save(folder / "prog.mpc")
    shutil.copy(tiny.saved_model(), folder / "model.pt2")
    tiny.base_model().save_pretrained(folder / "base")
    torch.manual_seed(0)
    from transformers import DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=9)).save_pretrained(
        folder / "other_base"
    )
    torch.save(tiny.classifier(), folder / "pickled.pt")
    return folder


class Unsupported(torch.nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


@pytest.fixture
def folder(originals, tmp_path):
    shutil.copytree(originals, tmp_path / "here")
    return tmp_path / "here"


def one_line(capsys, folder, *arguments, code=2):
    """Run the command; its one line on stderr. Nothing below `folder` may change."""
    before = tiny.snapshot(folder)
    assert cli.call([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert tiny.snapshot(folder) == before
    lines = [line for line in err.splitlines() if not line.startswith("mpcc: note:")]
    assert len(lines) == 1 and lines[0].startswith("mpcc: error: "), err
    assert not out
    return lines[0]


def compile_arguments(folder, *more, model="model.pt2", out="prog.mpc"):
    return ["compile", folder / model, "-o", folder / out, "--calibrate-random", "2", *more]


def write(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / name


# ** compile **
def test_unsupported_operation(folder, capsys):
    program = torch.export.export(Unsupported(), (torch.zeros(2, 4),))
    torch.export.save(program, folder / "fft.pt2")
    line = one_line(capsys, folder, *compile_arguments(folder, model="fft.pt2", out="new.mpc"))
    assert "fft" in line and "test_mistakes.py" in line


def test_pickled_model(folder, capsys):
    assert "pickle" in one_line(capsys, folder, *compile_arguments(folder, model="pickled.pt"))


def test_missing_model(folder, capsys):
    assert "no such model file" in one_line(capsys, folder, *compile_arguments(folder, model="none.pt2"))


def test_base_that_does_not_match(folder, capsys):
    line = one_line(capsys, folder, *compile_arguments(folder, "--base", folder / "other_base"))
    assert "does not match" in line


def test_contradictory_rules(folder, capsys):
    rules = write(folder, "rules.toml", 'public = ["classifier.*"]\nprivate = ["classifier.bias"]\n')
    line = one_line(capsys, folder, *compile_arguments(folder, "--partition", rules))
    assert "both public and private" in line


def test_peft_without_adapter_or_base(folder, capsys):
    assert "--base" in one_line(capsys, folder, *compile_arguments(folder, "--peft"))
    line = one_line(capsys, folder, *compile_arguments(folder, "--peft", "--base", folder / "base"))
    assert "no PEFT adapter" in line


def test_no_calibration(folder, capsys):
    line = one_line(capsys, folder, "compile", folder / "model.pt2", "-o", folder / "new.mpc")
    assert "calibration" in line


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("--protocol", "nope", "unknown protocol"),
        ("--truncation", "nope", "unknown truncation"),
        ("--output", "nope", "unknown output"),
        ("--network", "nope", "unknown network"),
        ("--approximation", "gelu", "not OPERATION=FORM"),
        ("--approximation", "gelu=nope", "unknown approximation gelu=nope"),
        ("--public-input", "nope", "no input 'nope'"),
        ("--batch-size", "0", "--batch-size"),
    ],
)
def test_unknown_choices(folder, capsys, option, value, message):
    assert message in one_line(capsys, folder, *compile_arguments(folder, option, value))


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not JSON"),
        ("[]", "neither an object nor a list"),
        ("3", "neither an object nor a list"),
        ('[{"input_ids": [[1.5, 2.5]], "attention_mask": [[1, 1]]}]', "floating-point"),
    ],
)
def test_bad_calibration_file(folder, capsys, content, message):
    file = write(folder, "calibration.json", content)
    assert message in one_line(capsys, folder, *compile_arguments(folder, "--calibration", file))


def test_place_that_cannot_be_written(folder, capsys, monkeypatch):
    assert "no such folder" in one_line(capsys, folder, *compile_arguments(folder, out="none/prog.mpc"))
    monkeypatch.setattr(bundle_files.os, "access", lambda path, mode: not Path(path).is_dir())
    assert "not writable" in one_line(capsys, folder, *compile_arguments(folder))


def test_no_space(folder, capsys, monkeypatch):
    real = bundle_files.write_part

    def write(root, part):
        if part.name == "ring.ir":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(root, part)

    monkeypatch.setattr(bundle_files, "write_part", write)
    assert "it needs" in one_line(capsys, folder, *compile_arguments(folder))


# ** run **
@pytest.mark.parametrize(
    "value, message",
    [
        ({"input_ids": [[1, 2]]}, "'attention_mask' is missing"),
        ({"ids": [[1, 2]]}, "no input 'ids'"),
        ({"input_ids": [1, 2], "attention_mask": [1, 1]}, "has the shape [2], the program takes [1, 8]"),
        ({"input_ids": [[1] * 8] * 2, "attention_mask": [[1] * 8] * 2}, "has the shape [2, 8]"),
        ({"input_ids": [[1.0] * 8], "attention_mask": [[1] * 8]}, "floating-point"),
        ({"input_ids": [[60] + [1] * 7], "attention_mask": [[1] * 8]}, "out of range; ids are 0 to 59"),
        ({"input_ids": [[-1] + [1] * 7], "attention_mask": [[1] * 8]}, "out of range"),
        ({"input_ids": [[1] * 12], "attention_mask": [[1] * 12]}, "12 tokens, compiled for 8"),
        ({"input_ids": [[1] * 8], "attention_mask": [[0] * 8]}, "masks a whole row"),
        ({"input_ids": [[1] * 8], "attention_mask": [[2] * 8]}, "other than 0 and 1"),
        ({"input_ids": [[1], [1, 2]], "attention_mask": [[1] * 8]}, "rows of unequal length"),
        ({"input_ids": "words", "attention_mask": [[1] * 8]}, "not an array"),
        ({"text": "fine " * 9}, "9 tokens, compiled for 8"),
        ({"text": ["a", "b"]}, "there are 2 texts"),
        ({"text": 3}, "neither a text nor a list"),
    ],
)
def test_wrong_input(capsys, tmp_path, monkeypatch, value, message):
    monkeypatch.setattr(files, "load", lambda path: tiny.private_program())
    file = write(tmp_path, "in.json", value)
    line = one_line(capsys, tmp_path, "run", "prog.mpc", "--input", file, "--engine", "emulator")
    assert message in line


@pytest.mark.parametrize("part", ["manifest.json", "client/graph.ir", "provider/weights.safetensors"])
def test_missing_bundle_file(folder, capsys, part):
    (folder / "prog.mpcc" / part).unlink()
    file = write(folder, "in.json", {"text": "a fine film"})
    assert part in one_line(capsys, folder, "run", folder / "prog.mpc", "--input", file, "--engine", "emulator")


@pytest.mark.parametrize("part", ["ring.ir", "client/weights.safetensors", "provider/weights.safetensors"])
def test_corrupt_bundle_file(folder, capsys, part):
    (folder / "prog.mpcc" / part).write_bytes(b"\x00" * 40)
    line = one_line(capsys, folder, "inspect", folder / "prog.mpc")
    assert f"{part} is corrupt: its digest" in line


def test_changed_source(folder, capsys):
    (folder / "prog.mpc").write_text("print_ln('hello')\n")
    assert "source was changed" in one_line(capsys, folder, "explain", folder / "prog.mpc")


def test_engine_that_is_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "load", lambda path: tiny.private_program())
    monkeypatch.delenv("MP_SPDZ_HOME", raising=False)
    monkeypatch.setattr("mpcc.runtime.spu.protocols.PACKAGE", "no-such-package")
    file = write(tmp_path, "in.json", {"text": "a fine film"})
    arguments = ["run", "prog.mpc", "--input", file]
    assert "--engine emulator, which computes in clear and protects nothing" in one_line(capsys, tmp_path, *arguments)
    assert "no engine 'spu2'" in one_line(capsys, tmp_path, *arguments, "--engine", "spu2")
    assert "pip install mpcc[spu]" in one_line(capsys, tmp_path, *arguments, "--engine", "spu", code=3)
    monkeypatch.setenv("MP_SPDZ_HOME", str(tmp_path))
    assert "no MP-SPDZ" in one_line(capsys, tmp_path, *arguments)
    assert "no MP-SPDZ" in one_line(capsys, tmp_path, *arguments, "--engine", "mp-spdz", code=3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inspect"], "Missing argument"),
        (["nope"], "No such command"),
        (["run", "prog.mpc"], "--input"),
        (["inspect", "none.mpc"], "no such program"),
        (["inspect", "none.txt"], "ends in .mpc"),
        (["inspect", "none.mpc", "--ir", "x"], "no IR 'x'"),
    ],
)
def test_wrong_arguments(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in one_line(capsys, tmp_path, *arguments)


# ** exit codes **
@pytest.mark.parametrize(
    "error, code, message",
    [
        (EngineError("party 1 ended"), 3, "mpcc: error: party 1 ended"),
        (KeyboardInterrupt(), 130, "mpcc: interrupted"),
        (ZeroDivisionError("division by zero"), 70, "please report it"),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code, message):
    def fail(path):
        raise error

    monkeypatch.setattr(files, "load", fail)
    assert cli.call(["inspect", "prog.mpc"]) == code
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
    if code == 70:
        assert "--traceback" in err
        assert cli.call(["inspect", "prog.mpc", "--traceback"]) == code
        assert "ZeroDivisionError" in capsys.readouterr().err


def test_process_prints_one_line(folder):
    """The real process: no warning of a library comes between."""
    program = torch.export.export(Unsupported(), (torch.zeros(2, 4),))
    torch.export.save(program, folder / "fft.pt2")
    command = [sys.executable, "-m", "mpcc", "compile", str(folder / "fft.pt2"), "-o", str(folder / "new.mpc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=child.SLOW_START)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (folder / "new.mpc").exists() and not done.stdout
