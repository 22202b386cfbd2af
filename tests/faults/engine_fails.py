"""Faults of the engine itself, with a stand-in for MP-SPDZ whose parties do as they are told; all on one machine."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace

import numpy as np
from fake_home import make_home

from mpcc.compiler.errors import EngineError
from mpcc.runtime.mp_spdz.emitted import Emitted
from mpcc.runtime.mp_spdz.session import provision, serve
from mpcc.runtime.parties.processes import PORT_ATTEMPTS, Limits
from tests.faults.commands import Ended
from tests.faults.fault import ENGINE, Causes, Fault, Stage, refused
from tests.faults.place import HERE, STAND_IN, Place

ENOUGH = Limits(start=60.0, idle=30.0)  # for a busy machine; what is expected to stall says how soon by itself
STALLS = Limits(start=60.0, idle=3.0)
WEIGHTS = np.array([7], np.int64)
REQUESTS = [np.array(pair, np.int64) for pair in ((1, -2), (3, 4))]
PROGRAM = Emitted("x = 1\n", "ring", "layout", np.zeros(0, np.int64), 1, 2, (("y", 1), ("z", 1)))
DEALT = replace(PROGRAM, protocol="dealer-ring")
ANSWERS = [{"y": [1], "z": [-2]}, {"y": [3], "z": [4]}]
MIXED = "the stored shares of the parties are not of one provisioning"
ROLES = ("client", "provider", "helper")


def behaves(
    behaviour: str,
    *,
    provisions: bool = False,
    limits: Limits = ENOUGH,
    program: Emitted = PROGRAM,
    binary: str = "replicated-ring-party.x",
) -> Causes:
    """Parties of this behaviour; then, with the same stored shares, parties that work."""

    def cause(place: Place):
        folder = place.folder / "behaves"
        good, bad = make_home(folder / "good", "session()"), make_home(folder / "bad", behaviour, binary=binary)
        kept, tempfile.tempdir = tempfile.tempdir, str(place.at(HERE) / "tmp")
        try:
            provision(PROGRAM, WEIGHTS, folder / "state", home=good, limits=ENOUGH)
            try:
                if provisions:
                    provision(program, WEIGHTS, folder / "state", home=bad, limits=limits)
                else:
                    serve(program, REQUESTS, weights=WEIGHTS, home=bad, limits=limits)
                seen = Ended(0, "", "")
            except EngineError as error:
                seen = Ended(error.exit_code, "", f"mpcc: error: {error}\n")
            place.check_nothing_left()
            assert not [p for p in (folder / "state").iterdir() if p.name not in ROLES]
            served = serve(PROGRAM, REQUESTS, state=folder / "state", home=good, limits=ENOUGH)
            assert [{k: v.tolist() for k, v in a.items()} for a in served.answers] == ANSWERS
        finally:
            tempfile.tempdir = kept
            shutil.rmtree(folder, ignore_errors=True)
        return {HERE: seen}

    return cause


def row(name: str, stage: Stage, behaviour: str, says: str, **more) -> Fault:
    return Fault(name, stage, STAND_IN, behaves(behaviour, **more), refused(HERE, says, ENGINE), damages=True)


def dies(player: int) -> str:
    return (
        f"begin()\nif player == {player}: die()\n"
        "wait_for_a_death(); say('Fatal communication error', sys.stderr); sys.exit(1)"
    )


IN_USE = "say('Binding to socket on host:1 failed (Address already in use)', sys.stderr)"
TAKEN_TWICE = f"""
tries = record / f'tries{{player}}'
tries.open('a').write('x')
if player == 1 and len(tries.read_text()) < 3: {IN_USE}; time.sleep(60)
if player != 1: time.sleep(0.5)
session()
"""
ENGINE_FAILS = [
    *(
        row(
            f"the engine of the {role} fails",
            Stage.REQUEST,
            f"begin()\nif player == {player}: say('Fatal: value 9876543210', sys.stderr); sys.exit(3)\ntime.sleep(60)",
            rf"the {role} failed \(exit code 3\); its last line: Fatal: value #",
        )
        for player, role in enumerate(ROLES)
    ),
    *(
        row(f"an engine dies: the {role}'s", Stage.REQUEST, dies(player), f"the {role} was ended by SIGKILL")
        for player, role in enumerate(ROLES)
    ),
    *(
        row(
            f"an engine dies: the {role}'s",
            Stage.SHARING,
            dies(player),
            f"the {role} was ended by SIGKILL",
            provisions=True,
        )
        for player, role in enumerate(ROLES)
    ),
    *(
        row(
            f"the engine of the {role} ends between two requests",
            Stage.IDLE,
            f"session(each=lambda done: sys.exit(4) if player == {player} else time.sleep(60))",
            rf"the {role} failed \(exit code 4\)",
        )
        for player, role in enumerate(ROLES)
    ),
    row(
        "an engine has too little memory",
        Stage.SHARING,
        "begin()\nif player == 2: say('terminate called: std::bad_alloc', sys.stderr); os.abort()\ntime.sleep(60)",
        "the helper was ended by SIGABRT; its last line: terminate called: std::bad_alloc",
        provisions=True,
    ),
    row(
        "an engine leaves a process behind",
        Stage.REQUEST,
        "subprocess.Popen(['sleep', '60'])\nbegin()\nsys.exit(1 if player == 1 else 0)",
        "the provider failed",
    ),
    row("an engine ends early and well", Stage.REQUEST, "begin()\nif player: finish()", "received less than"),
    row(
        "an engine does not report what it sent",
        Stage.OUTPUT,
        "begin()\nserve() if player != 1 else None",
        "did not report what it sent; at party 1",
    ),
    row(
        "engines never connect",
        Stage.MEETING,
        "say('waiting', sys.stderr)\nwhile True: time.sleep(0.001)",
        "did not connect within 1 s",
        limits=Limits(start=1.0, idle=9.0),
    ),
    row(
        "an engine stands still at its start",
        Stage.MEETING,
        "os.kill(os.getpid(), signal.SIGSTOP) if player == 2 else time.sleep(60)",
        r"helper \(stopped\)",
        limits=STALLS,
    ),
    row(
        "nothing happens any more",
        Stage.REQUEST,
        "begin()\ntime.sleep(60)",
        "no party made progress for 3 s; last line of the client: Starting timer 2",
        limits=STALLS,
    ),
    Fault(
        "work without a word is no standstill",
        Stage.REQUEST,
        STAND_IN,
        behaves("begin()\nend = time.time() + 4\nwhile time.time() < end: pass\nserve()", limits=STALLS),
        refused(HERE, "", 0),
        damages=True,
    ),
    Fault(
        "a free port is taken twice", Stage.MEETING, STAND_IN, behaves(TAKEN_TWICE), refused(HERE, "", 0), damages=True
    ),
    row(
        "every free port is taken",
        Stage.MEETING,
        f"{IN_USE}; time.sleep(60)",
        f"no free port for the parties in {PORT_ATTEMPTS} attempts",
    ),
    row(
        "the engine says that shares do not belong together",
        Stage.SHARING,
        f"begin(); say({MIXED!r}); say('crash', sys.stderr); sys.exit(1)",
        f"{MIXED}.*provision again",
    ),
    row(
        "a dealer, who holds no shares, says so too",
        Stage.SHARING,
        f"begin()\nif player == 2: say({MIXED!r}); time.sleep(60)\nsay('crash', sys.stderr); sys.exit(1)",
        "the client failed",
        program=DEALT,
        binary="dealer-ring-party.x",
    ),
    row(
        "an engine stores too few shares",
        Stage.SHARING,
        "begin()\nstore(1 if player == 2 else 2)",
        "did not store its 2 shares.*room on the disk",
        provisions=True,
    ),
    row(
        "MP-SPDZ's compiler refuses the program",
        Stage.COMPILE,
        "session()",
        "compiler refused the program: CompilerError.*#",
        program=replace(PROGRAM, source="syntax error"),
    ),
    row(
        "a protocol that there is not",
        Stage.COMPILE,
        "session()",
        "does not run the protocol 'mascot'",
        program=replace(PROGRAM, protocol="mascot"),
    ),
]
