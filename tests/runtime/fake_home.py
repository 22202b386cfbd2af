"""A folder that looks like MP-SPDZ: its compiler and its parties are scripts that behave as a test wants."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMPILER = """
import pathlib, sys
source = pathlib.Path(next(a for a in sys.argv if a.endswith(".mpc")))
mode = "".join(f"-{a}" for a in sys.argv[sys.argv.index(str(source)) + 1:])
text = source.read_text()
if "syntax error" in text:
    print("Traceback (most recent call last):", file=sys.stderr)
    print("CompilerError: no such instruction, 123456789012", file=sys.stderr)
    sys.exit(1)
for folder in ("Bytecode", "Schedules"):
    pathlib.Path("Programs", folder).mkdir(parents=True, exist_ok=True)
pathlib.Path("Programs/Schedules", source.stem + mode + ".sch").write_text("1")
pathlib.Path("Programs/Bytecode", source.stem + mode + "-0.bc").write_text(text + mode)
"""

PARTY = """#!{python}
import os, pathlib, signal, subprocess, sys, time
player = int(sys.argv[sys.argv.index("-p") + 1])
hosts = pathlib.Path("hosts").read_text().split()
record = pathlib.Path(__file__).parent
data = pathlib.Path("Player-Data")

def say(text, file=sys.stdout):
    print(text, file=file, flush=True)

def begin():
    say("Starting timer 2 at 0 (0 MB, 0 rounds) after 0.1")

def die():
    # killed; the others learn whom to look for
    (record / "dying.new").write_text(str(os.getpid()))
    (record / "dying.new").rename(record / "dying")
    os.kill(os.getpid(), signal.SIGKILL)

def wait_for_a_death():
    # until that party is dead, and mpcc has had time to see it first
    while not (record / "dying").exists():
        time.sleep(0.01)
    process = pathlib.Path("/proc", (record / "dying").read_text(), "stat")
    while process.exists() and process.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    time.sleep(0.3)

def finish(content=None):
    # one request, whose numbers are the answer: the zero behind it, for no other one, ends the answer as well
    counted = (2, 0.5, 1), (5, 0, 0), (3, 8e-06, 1), (1, 1.2345670000000001, 10 + player), (4, 1.6e-05, 1), (5, 0, 0)
    for timer, mb, rounds in counted:
        say(f"Stopped timer {{timer}} at 0.25 ({{mb}} MB, {{rounds}} rounds)")
    if player == 0:
        content = (data / "Input-Binary-P0-0").read_bytes() if content is None else content
        (data / "Binary-Output-P0-0").write_bytes(content[8:])  # first, how many requests the party answers

def stopped(timer, times=1):
    say(f"Stopped timer {{timer}} at {{0.25 * times}} ({{1e-06 * timer * times}} MB, {{times}} rounds)")

def store(values=2):
    # what provisioning leaves: a header, then 16 bytes a share
    name = b"replicated Z2^64"
    content = len(name).to_bytes(8, "little") + name + bytes(range(16)) * values
    pathlib.Path("Persistence", f"Transactions-P{{player}}.data").write_bytes(content)
    stopped(2)

def serve(numbers=2, each=lambda done: None, requests=2, answer=None):
    # answers requests of some numbers each with the first of them; the others, who see no request, do a fixed count
    stopped(2); stopped(5)
    source = (data / "Input-Binary-P0-0").open("rb") if player == 0 else None
    _ = source.read(8) if source else b""  # how many requests the party answers
    done = 0
    while True:
        request = source.read(8 * numbers) if source else b""
        for timer in (3, 1, 4):
            stopped(timer, done + 1)
        if source:
            with (data / "Binary-Output-P0-0").open("ab") as file:
                file.write(request[: 8 * (numbers if answer is None else answer)] + bytes(8))
        done += 1
        each(done)
        stopped(5, done + 1)
        if not int.from_bytes(source.read(8), "little") if source else done == requests:
            return

def session(stored=2, **options):
    # all modes: what a party does that works
    begin()
    if sys.argv[1].endswith("-provision"):
        store(stored)
    else:
        serve(**options)

{behaviour}
"""

GOOD = "begin(); finish()"


def make_home(
    folder: Path, behaviour: str = GOOD, *, version: str = "0.4.2", binary: str = "replicated-ring-party.x"
) -> Path:
    """A fake MP-SPDZ whose parties run the Python statements `behaviour` (see PARTY for what they can use)."""
    folder.mkdir(parents=True)
    (folder / "compile.py").write_text(COMPILER)
    (folder / "CHANGELOG.md").write_text(f"What changed.\n\n## {version} (Dec 24, 2025)\n\n## 0.1.0\n")
    party = folder / binary
    party.write_text(PARTY.format(python=sys.executable, behaviour=behaviour))
    party.chmod(0o755)
    return folder


def processes_below(folder: Path) -> list[int]:
    """Every process that runs in a folder, or that names it in its command line, except this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            cwd, command = str((entry / "cwd").readlink()), (entry / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if cwd.startswith(str(folder)) or str(folder) in command:
            found.append(int(entry.name))
    return found


def soon(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether a condition becomes true in time; the time is for a machine that is busy with something else."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
