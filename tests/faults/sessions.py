"""Faults in sessions of real parties: who is killed, stopped or interrupted when, and what the network does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping

from tests.faults.commands import Ended
from tests.faults.fault import ENGINE, INTERRUPTED, USER, Causes, End, Fault, Stage
from tests.faults.place import Place, program, stopped_while

ROLES = ("client", "provider", "helper")
LOST = "has closed its connection|failed"
TERMINATED = 143
DONE = End(0)
SHORT = 4.0  # seconds without work that are too long


def others(role: str) -> tuple[str, ...]:
    return tuple(r for r in ROLES if r != role)


def ends(role: str, own: End, rest: End) -> dict[str, End]:
    return {role: own, **dict.fromkeys(others(role), rest)}


# ** one process gets a signal **
def while_idle(role: str, kind: str, number: int) -> Causes:
    """After the first answer."""

    def cause(place: Place):
        place.session()
        place.signal(role, kind, number)
        return place.ended()

    return cause


def in_a_request(role: str, kind: str, number: int) -> Causes:
    """While another party stands still, so that nobody can be done."""

    def cause(place: Place):
        place.session()
        still = others(role)[-1]
        stopped_while(place, still, lambda: place.signal(role, kind, number))
        return place.ended()

    return cause


def while_sharing(role: str, kind: str, number: int) -> Causes:
    """While weights are shared, into a new folder: another party stands still as soon as it runs."""

    def cause(place: Place):
        for each in ROLES:
            place.party(each, "--provision", "--state", "other")
        still = others(role)[-1]
        place.signal(still, "engine", signal.SIGSTOP)
        victim = place.wait_for(role, "engine")
        place.signal(role, kind, number) if kind == "mpcc" else victim.send_signal(number)
        time.sleep(0.2)
        if (engine := place.find(still, "engine")) is not None:
            engine.send_signal(signal.SIGCONT)
        return place.ended()

    return cause


def while_compiling(role: str, kind: str, number: int) -> Causes:
    """While MP-SPDZ's compiler makes byte code of the program."""

    def cause(place: Place):
        place.party(role, "--provision", "--state", "other")
        compiler = place.wait_for(role, "compiler")
        place.signal(role, kind, number) if kind == "mpcc" else compiler.send_signal(number)
        return place.ended()

    return cause


def while_meeting(role: str, number: int) -> Causes:
    """Before the last party is there; one that waits is told nothing."""

    def cause(place: Place):
        place.party(role, *place.stored, *(("--input", "in.json") if role == "client" else ()))
        place.wait_for(role, "tunnel")
        time.sleep(0.3)
        place.signal(role, "mpcc", number)
        return place.ended()

    return cause


OWN = {
    ("mpcc", signal.SIGKILL): End(-signal.SIGKILL),
    ("mpcc", signal.SIGTERM): End(TERMINATED, "ended by SIGTERM"),
    ("mpcc", signal.SIGINT): End(INTERRUPTED, "interrupted"),
    ("engine", signal.SIGKILL): End(ENGINE, "was ended by SIGKILL"),
    ("tunnel", signal.SIGKILL): End(ENGINE, "tunnel to the other parties has ended"),
}
WORDS = {
    ("mpcc", signal.SIGKILL): "mpcc of the {} is killed",
    ("mpcc", signal.SIGTERM): "mpcc of the {} is told to end (SIGTERM)",
    ("mpcc", signal.SIGINT): "mpcc of the {} is interrupted (SIGINT)",
    ("engine", signal.SIGKILL): "the engine of the {} is killed",
    ("tunnel", signal.SIGKILL): "the tunnel of the {} is killed",
}


def killed(stage: Stage, engine: str, role: str, kind: str, number: int) -> Fault:
    how = {Stage.IDLE: while_idle, Stage.REQUEST: in_a_request, Stage.SHARING: while_sharing}[stage]
    own = OWN[kind, number]
    name = WORDS[kind, number].format(role)
    return Fault(name, stage, engine, how(role, kind, number), ends(role, own, End(ENGINE, LOST)))


KILLED = [
    *(
        killed(stage, "ring", role, kind, signal.SIGKILL)
        for stage in (Stage.SHARING, Stage.IDLE, Stage.REQUEST)
        for kind in ("engine", "mpcc")
        for role in ROLES
    ),
    *(killed(Stage.IDLE, "ring", role, "tunnel", signal.SIGKILL) for role in ROLES),
    *(killed(Stage.IDLE, "ring", role, "mpcc", n) for role in ROLES for n in (signal.SIGINT, signal.SIGTERM)),
    killed(Stage.REQUEST, "ring", "client", "mpcc", signal.SIGINT),
    killed(Stage.SHARING, "ring", "provider", "mpcc", signal.SIGINT),
    *(
        Fault(WORDS["mpcc", n].format(role), Stage.MEETING, "ring", while_meeting(role, n), {role: OWN["mpcc", n]})
        for role, n in (
            ("client", signal.SIGKILL),
            ("provider", signal.SIGINT),
            ("helper", signal.SIGTERM),
            ("provider", signal.SIGKILL),
        )
    ),
    *(
        Fault(
            WORDS["mpcc", n].format("provider"),
            Stage.COMPILE,
            "ring",
            while_compiling("provider", "mpcc", n),
            {"provider": OWN["mpcc", n]},
        )
        for n in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
    ),
    Fault(
        "MP-SPDZ's compiler is killed",
        Stage.COMPILE,
        "ring",
        while_compiling("provider", "compiler", signal.SIGKILL),
        {"provider": End(ENGINE, "compiler refused the program|compiler was ended by SIGKILL")},
    ),
]


def goes_on(place: Place) -> dict[str, Ended]:
    """Another request is answered, and the session ends well."""
    place.ask()
    assert len(place.commands["client"].said(2)) == 2, place.ended()
    place.commands["client"].hang_up()
    return place.ended()


# ** who stands still, comes late, or does not come **
def stopped(role: str, kind: str) -> Causes:
    """It stands still, and the next request waits for it."""

    def cause(place: Place):
        place.session(idle=SHORT)
        place.signal(role, kind, signal.SIGSTOP)
        place.ask()
        return place.ended()

    return cause


def slow_mpcc(place: Place):
    """mpcc of the provider stands still for a moment: its engine goes on."""
    place.session()
    place.signal("provider", "mpcc", signal.SIGSTOP)
    place.ask()
    assert len(place.commands["client"].said(2)) == 2
    place.signal("provider", "mpcc", signal.SIGCONT)
    place.commands["client"].hang_up()
    return place.ended()


def without_a_watchdog(place: Place):
    place.session()
    place.signal("helper", "watchdog", signal.SIGKILL)
    place.commands["client"].hang_up()
    return place.ended()


def absent(role: str) -> Causes:
    def cause(place: Place):
        for other in others(role):
            place.party(other, *place.stored, *(("--input", "in.json") if other == "client" else ()), wait=4)
        return place.ended()

    return cause


def late(place: Place):
    for role in ("helper", "provider", "client"):
        place.party(role, *place.stored, *(("--input", "in.json") if role == "client" else ()))
        time.sleep(1.5)
    return place.ended()


ALL_DONE = dict.fromkeys(ROLES, DONE)
STILL = [
    *(
        Fault(
            f"the {kind} of the {role} stands still",
            Stage.REQUEST,
            "ring",
            stopped(role, kind),
            dict.fromkeys(ROLES, End(ENGINE, f"no party made progress|{LOST}")),
        )
        for kind, role in (("engine", "provider"), ("engine", "helper"), ("tunnel", "provider"), ("tunnel", "client"))
    ),
    *(
        Fault(
            f"the {role} never starts",
            Stage.MEETING,
            "ring",
            absent(role),
            {other: End(ENGINE, f"the {role} did not connect within 4 s") for other in others(role)},
        )
        for role in ROLES
    ),
    Fault("every party starts late", Stage.MEETING, "ring", late, ALL_DONE),
    Fault("mpcc of the provider stands still for a moment", Stage.REQUEST, "ring", slow_mpcc, ALL_DONE),
    Fault("the watchdog of the helper is killed", Stage.IDLE, "ring", without_a_watchdog, ALL_DONE),
]


# ** who does not fit **
def not_alike(role: str, *options: str) -> Causes:
    """One party is started with other options than the rest."""

    def cause(place: Place):
        for each in ROLES:
            own = options if each == role else place.stored
            place.party(each, *own, *(("--input", "in.json") if each == "client" else ()), wait=20)
        return place.ended()

    return cause


def another_program(role: str, protocol: str = "ring") -> Causes:
    """One party has its part of a program of another seed, or of another protocol; nobody uses stored shares."""

    def cause(place: Place):
        at = place.at(role)
        shutil.rmtree(at / "prog.mpcc")
        program(protocol, 1).save(at / "prog.mpc")
        for each in ROLES:
            place.party(each, *(("--input", "in.json") if each == "client" else ()), wait=8)
        return place.ended()

    return cause


def mixed_shares(place: Place):
    """The helper's shares are of another provisioning than the others'."""
    done = place.all("--provision", "--state", "other", client=())
    assert all(e.code == 0 for e in done.values()), done
    for role in ROLES:
        state = "state" if role == "helper" else "other"
        place.party(role, "--state", state, *(("--input", "in.json") if role == "client" else ()))
    seen = place.ended()
    for role in ROLES:
        shutil.rmtree(place.at(role) / "other", ignore_errors=True)
    return seen


def twice(role: str) -> Causes:
    """The same party once more, while the first one is in a session, which goes on."""

    def cause(place: Place):
        place.session()
        first = place.commands.pop(role)
        place.party(role, *place.stored, *(("--input", "in.json") if role == "client" else ()), wait=4)
        second = place.ended(role)[role]
        place.commands[role] = first
        return {**goes_on(place), f"the second {role}": second}

    return cause


DIFFERS = "do(es)? not run the same program|has closed its connection|did not connect"
UNLIKE = [
    Fault(
        "one party has no --state",
        Stage.MEETING,
        "ring",
        not_alike("provider"),
        dict.fromkeys(ROLES, End(ENGINE, DIFFERS)),
    ),
    Fault(
        "one party shares weights (--provision) while the others ask",
        Stage.MEETING,
        "ring",
        not_alike("helper", "--provision", "--state", "other"),
        dict.fromkeys(ROLES, End(ENGINE, DIFFERS)),
    ),
    *(
        Fault(
            f"the {role} has another program",
            Stage.MEETING,
            "ring",
            another_program(role),
            dict.fromkeys(ROLES, End(ENGINE, DIFFERS)),
            damages=True,
        )
        for role in ("client", "helper")
    ),
    Fault(
        "the provider has a program of another protocol",
        Stage.MEETING,
        "ring",
        another_program("provider", "dealer-ring"),
        ends("provider", End(USER, r"has no \[dealer\]"), End(ENGINE, "the provider did not connect")),
        damages=True,
    ),
    Fault(
        "shares of two provisionings",
        Stage.SHARING,
        "ring",
        mixed_shares,
        dict.fromkeys(ROLES, End(ENGINE, f"not of one provisioning|{LOST}")),
    ),
    *(
        Fault(
            f"two {role}s at once, in one folder",
            Stage.IDLE,
            "ring",
            twice(role),
            {**ALL_DONE, f"the second {role}": End(ENGINE, "the port cannot be used: Address already in use")},
        )
        for role in ROLES
    ),
]


# ** what the client says and how it listens **
def says(line: str) -> Causes:
    """A second request that is none."""

    def cause(place: Place):
        place.session()
        place.commands["client"].tell(line)
        return place.ended()

    return cause


def nothing_said(place: Place):
    place.session(answers=0)
    place.commands["client"].hang_up()
    return place.ended()


def listens(stdout: str) -> Causes:
    def cause(place: Place):
        for role in ROLES:
            client = role == "client"
            place.party(
                role,
                *place.stored,
                "--json",
                *(("--input", "in.json") if client else ()),
                stdout=stdout if client else "",
            )
        return place.ended()

    return cause


def reader_leaves(place: Place):
    """The program that reads the client's answers ends before they come."""
    pipe = place.folder / "said" / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for role in ROLES:
            client = role == "client"
            place.party(
                role,
                *place.stored,
                "--json",
                *(("--input", "in.json") if client else ()),
                stdout=str(pipe) if client else "",
            )
        place.wait_for("client", "tunnel")
    finally:
        os.close(reader)
    seen = place.ended()
    pipe.unlink()
    return seen


AGAIN: Mapping[str, End] = {"provider": End(ENGINE, LOST), "helper": End(ENGINE, LOST)}
CLIENT = [
    Fault(
        "the second request does not fit",
        Stage.REQUEST,
        "ring",
        says(json.dumps({"input_ids": [[1] * 9]})),
        {"client": End(USER, "9"), **AGAIN},
    ),
    Fault(
        "the second request is not JSON",
        Stage.REQUEST,
        "ring",
        says("{"),
        {"client": End(USER, "no JSON object"), **AGAIN},
    ),
    Fault(
        "the client has no request at all",
        Stage.IDLE,
        "ring",
        nothing_said,
        {"client": End(ENGINE, "at least one request|received less"), **AGAIN},
    ),
    Fault(
        "the client's output cannot be written (full disk)",
        Stage.OUTPUT,
        "ring",
        listens("/dev/full"),
        {**ALL_DONE, "client": End(USER, "cannot write: No space left on device")},
    ),
    Fault("who reads the client's output has left", Stage.OUTPUT, "ring", reader_leaves, ALL_DONE),
]
SESSIONS = [*KILLED, *STILL, *UNLIKE, *CLIENT]
