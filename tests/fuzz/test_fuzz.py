"""Changed files of every reader: a few hundred here, thousands with `make fuzz`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mpcc.cli import app as cli
from mpcc.compiler.errors import MpccError
from tests.fuzz import harness
from tests.fuzz.corpus import CASES
from tests.fuzz.programs import stack
from tests.fuzz.readers import READERS

BY_NAME = {reader.name: reader for reader in READERS}
SLOW = ("encoder", "config.json", "model.safetensors", "exported program")


def test_honest_files_are_accepted_and_a_few_changed_ones_do_no_harm():
    wrong = []
    for reader in READERS:
        if any(word in reader.name for word in SLOW):
            continue
        assert harness.outcome_of(reader, harness.content_of(reader, 0, 0)) == "accepted", reader.name
        tally = harness.here(reader, range(1, 11), seed=0)
        wrong += [f"{reader.name}, case {case}: {what}" for case, what in tally.bad]
    assert not wrong, "\n".join(wrong)


def test_what_once_gave_trouble_is_refused_in_one_line():
    wrong = []
    for name, old, new, said in CASES:
        reader = BY_NAME[name]
        honest = reader.seed()
        assert old is None or old in honest, (name, old)
        content = new if old is None else honest.replace(old, new, 1)
        outcome = harness.outcome_of(reader, content)
        if outcome != "refused":
            wrong.append(f"{name}, {new[:60]!r}: {outcome}")
            continue
        with pytest.raises(MpccError) as caught:
            reader.read(content)
        if said not in str(caught.value):
            wrong.append(f"{name}, {new[:60]!r}: {caught.value}")
    assert not wrong, "\n".join(wrong)


def test_a_case_follows_from_its_number():
    reader = BY_NAME["ring.ir of stack: run"]
    assert [harness.content_of(reader, 3, n) for n in range(20)] == [
        harness.content_of(reader, 3, n) for n in range(20)
    ]
    assert len({harness.content_of(reader, 3, n) for n in range(20)}) > 15


@pytest.mark.parametrize("body", ["raises", "loop", "memory"])
def test_the_harness_sees_what_is_bad(body, monkeypatch):
    """A reader that loops, takes all memory, or raises something else is counted as bad."""

    def read(content):
        if body == "loop":
            while True:
                pass
        if body == "memory":
            bytearray(harness.MEMORY * 2)
        raise KeyError("name")

    monkeypatch.setattr(harness, "SECONDS", 0.2)
    tally = harness.apart(harness.Reader("bad", lambda: b"x", "bytes", read), range(2), seed=0)
    assert (tally.tried, len(tally.bad)) == (2, 2)
    assert {"loop": "seconds", "memory": "MemoryError"}.get(body, "KeyError") in tally.bad[0][1]


@pytest.mark.slow
def test_thousands_of_changed_files_do_no_harm():
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--cases", "4000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"| {READERS[0].name} |" in done.stdout


# what is in the files of one program, and the command that a user would give
COMMANDS = [
    ("manifest.json", b'"ring_bits": 64', b'"ring_bits": 65', ["inspect"]),
    ("manifest.json", b'"Stack"', b'"\\u001b[2J"', ["inspect", "--json"]),
    ("ring.ir", b"ring 64", b"ring 64\nzero = const() {value=0} : public[70000,70000] q0 <=0.0", ["inspect"]),
    ("ring.ir", b"reveal(r21)", b"reveal(r99)", ["inspect", "--ir", "ring"]),
    ("ring.ir", b'to="client"', b'to="provider"', ["run", "--engine", "emulator", "--input", "IN"]),
    ("ring.ir", b"return", b"(" * 5000, ["run", "--engine", "emulator", "--input", "IN"]),
    ("graph.ir", b"site=mpc", b"site=here", ["explain"]),
    ("mpc.ir", b"relu(", b"reveal(", ["run", "--engine", "emulator", "--input", "IN"]),
    ("client/graph.ir", b"return", b'return "\\ud800" = %x, ', ["run", "--engine", "emulator", "--input", "IN"]),
    ("client/weights.safetensors", None, b"\xff" * 64, ["run", "--engine", "emulator", "--input", "IN"]),
    ("provider/manifest.json", None, b"[" * 100_000, ["inspect"]),
    ("prog.mpc", None, b"import os\n", ["party", "--role", "helper", "--hosts", "IN"]),
]


@pytest.mark.parametrize("file, old, new, command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_end_in_one_line(file, old, new, command, tmp_path, capsys):
    kit = stack()
    (tmp_path / "in.json").write_text(json.dumps(kit.sample))
    honest = kit.content(file)
    assert old is None or old in honest
    words = [command[0], str(kit.path), *(w.replace("IN", str(tmp_path / "in.json")) for w in command[1:])]
    with kit.with_file(file, new if old is None else honest.replace(old, new, 1)):
        code = cli.call(words)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert code in (2, 3) and lines[-1].startswith("mpcc: error: ") and not said.out, said
    assert sum(line.startswith("mpcc: ") and "error" in line for line in lines) == 1 and "Traceback" not in said.err
