"""Faults that come from the network: strangers at a port, and connections that break; and sessions on SPU."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from mpcc.runtime.parties.keys import make_identity
from tests.faults.fault import ENGINE, Causes, End, Fault, Stage
from tests.faults.network import PLAIN, Wire, push, with_tls
from tests.faults.place import Place
from tests.faults.sessions import ALL_DONE, LOST, ROLES, SHORT, goes_on, killed


def behind(place: Place, role: str, target: str) -> Wire:
    """A wire between two parties: the first one dials the second one there."""
    wire = Wire(place.ports[target])
    path = place.at(role) / "keys" / "hosts.toml"
    text = path.read_text()
    assert f"port = {place.ports[target]}\n" in text
    path.write_text(text.replace(f"port = {place.ports[target]}\n", f"port = {wire.port}\n"))
    return wire


def on_the_wire(do: Callable[[Wire], None], *, works: bool = False, dialler: str = "provider") -> Causes:
    """Something happens between the dialler and the client after the first answer; then there is another request."""

    def cause(place: Place):
        with closing(behind(place, dialler, "client")) as wire:
            place.session(idle=60.0 if works else SHORT)
            do(wire)
            if works:
                seen = goes_on(place)
            else:
                place.ask()
                seen = place.ended()
        place.give_keys()
        return seen

    return cause


def setting(name: str, value: object) -> Callable[[Wire], None]:
    return lambda wire: setattr(wire, name, value)


def pestered(content: bytes) -> Causes:
    """Every public port gets these bytes, while the parties meet and between two requests."""

    def cause(place: Place):
        with ExitStack() as stack:
            place.party("client", *place.stored, "--input", "-", spoken=True)
            place.wait_for("client", "tunnel")
            end = time.monotonic() + 60
            while time.monotonic() < end:  # until it listens
                try:
                    stack.enter_context(socket.create_connection(("127.0.0.1", place.ports["client"]), 5))
                    break
                except OSError:
                    time.sleep(0.02)
            assert push(place.ports["client"], content)[:1] in (b"", b"\x15")
            for role in ("provider", "helper"):
                place.party(role, *place.stored)
            place.ask()
            assert "output" in "".join(place.commands["client"].said(1))
            for port in place.ports.values():
                assert push(port, content)[:1] in (b"", b"\x15"), port
            return goes_on(place)

    return cause


def stranger(place: Place):
    """Somebody with a certificate of the right name, that nobody agreed on."""
    place.session()
    words = b"mpcc-link 1\n\x04\x00\x22\x02\x00" + bytes(32)
    assert with_tls(place.ports["client"], make_identity(2), place.folder / "stranger", words) == b""
    shutil.rmtree(place.folder / "stranger")
    return goes_on(place)


def wrong_session(place: Place):
    """The helper's own certificate, with the number of a session that is not this one."""
    place.session()
    words = b"mpcc-link 1\n\x04\x00\x22\x02\x00" + os.urandom(32)
    assert with_tls(place.ports["client"], place.identities["helper"], place.folder / "stranger", words)[-1:] == b"\x02"
    shutil.rmtree(place.folder / "stranger")
    return goes_on(place)


def silent_crowd(place: Place):
    """A hundred connections that say nothing, before and in the session."""
    with ExitStack() as stack:
        place.session()
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", place.ports["client"]), 5))
        return goes_on(place)


BROKEN = dict.fromkeys(ROLES, End(ENGINE, f"no party made progress|{LOST}"))
NETWORK = [
    Fault(
        "a connection is half open: nothing comes through",
        Stage.REQUEST,
        "ring",
        on_the_wire(setting("frozen", True)),
        BROKEN,
    ),
    Fault("a connection is cut", Stage.REQUEST, "ring", on_the_wire(Wire.cut), BROKEN),
    Fault("a bit is changed on the wire", Stage.REQUEST, "ring", on_the_wire(setting("flip", True)), BROKEN),
    Fault("a peer is slow", Stage.REQUEST, "ring", on_the_wire(setting("slow_seconds", 0.05), works=True), ALL_DONE),
    *(
        Fault(f"{name} at every public port", Stage.MEETING, "ring", pestered(content), ALL_DONE)
        for name, content in PLAIN.items()
    ),
    Fault("a stranger with a certificate of the helper's name", Stage.IDLE, "ring", stranger, ALL_DONE),
    Fault("the helper's certificate in another session", Stage.IDLE, "ring", wrong_session, ALL_DONE),
    Fault("a hundred silent connections", Stage.IDLE, "ring", silent_crowd, ALL_DONE),
]


ON_SPU = [
    *(killed(Stage.IDLE, "spu", role, "engine", signal.SIGKILL) for role in ROLES),
    killed(Stage.REQUEST, "spu", "client", "engine", signal.SIGKILL),
    killed(Stage.IDLE, "spu", "provider", "mpcc", signal.SIGKILL),
    killed(Stage.IDLE, "spu", "helper", "mpcc", signal.SIGINT),
    killed(Stage.IDLE, "spu", "client", "tunnel", signal.SIGKILL),
    Fault(
        "a plain-text push at every public port",
        Stage.MEETING,
        "spu",
        pestered(PLAIN["a plain-text push"]),
        ALL_DONE,
    ),
    Fault("a connection is cut", Stage.REQUEST, "spu", on_the_wire(Wire.cut), BROKEN),
    Fault("the helper's certificate in another session", Stage.IDLE, "spu", wrong_session, ALL_DONE),
]
ON_THE_WIRE = [*NETWORK, *ON_SPU]
