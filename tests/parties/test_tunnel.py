"""Three tunnels: what they carry, whom they turn away, and what ends a session."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading

import pytest
from fake_home import processes_below, soon
from forged import signed_by
from tunnels import PARTS, ROLES, Tunnels, short

from mpcc.compiler.errors import EngineError
from mpcc.runtime.parties.agreement import part
from mpcc.runtime.parties.keys import Identity, make_identity, save_identity
from mpcc.runtime.parties.routes import split_address
from mpcc.runtime.parties.tunnel import events


@pytest.fixture
def three(tmp_path):
    with Tunnels(tmp_path) as found:
        yield found
    assert soon(lambda: not processes_below(tmp_path))
    assert not [path.read_text() for path in tmp_path.glob("*/tunnel.err") if path.stat().st_size]


def exactly(connection, size):
    content = b""
    while len(content) < size and (more := connection.recv(1 << 16)):
        content += more
    return content


def all_talk(three):
    """Every engine reaches every other one, and gets back what it sends."""
    engines = [three.engine(player) for player in range(3)]
    for player in range(3):
        for peer in {0, 1, 2} - {player}:
            with three.connect(player, peer) as connection:
                assert exactly(connection, 1) == str(peer).encode()
                connection.sendall(b"hello")
                assert exactly(connection, 5) == b"hello"
    for engine in engines:
        engine.close()


# ** what works **
def test_all_engines_reach_each_other(three):
    opened = three.start()
    assert len({t.session for t in opened}) == 1 and len(opened[0].session) == 64
    all_talk(three)
    for tunnel in opened:
        tunnel.check()
    opened[2].close()
    assert opened[2].process.returncode == 0
    assert soon(lambda: {"event": "left", "player": 2} in events(three.at(0) / "tunnel.out"))
    for tunnel in opened[:2]:
        tunnel.check()
        tunnel.close()
    assert [t.process.returncode for t in opened] == [0, 0, 0]


def test_no_two_sessions_are_the_same(three, tmp_path):
    first = three.start()[0].session
    for tunnel in three.open.values():
        tunnel.close()
    for player in range(3):
        for path in three.at(player).glob("*.sock"):
            path.unlink()
    assert three.start()[0].session != first


def test_many_bytes_in_both_directions(three):
    """More than all buffers hold."""
    three.start()
    engine, content = three.engine(1), os.urandom(1 << 20) * 12
    with three.connect(0, 1) as connection:
        assert exactly(connection, 1) == b"1"
        sender = threading.Thread(target=connection.sendall, args=(content,))
        sender.start()
        assert exactly(connection, len(content)) == content
        sender.join()
    engine.close()


def test_what_is_on_its_way_arrives_before_the_farewell(three):
    opened = three.start()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(short(three.at(0) / "engine.sock"))
        listening.listen()
        connection, content = three.connect(2, 0), os.urandom(1 << 20)
        received, _ = listening.accept()
        with received:
            threading.Thread(target=lambda: (connection.sendall(content), connection.close())).start()
            closing = threading.Thread(target=opened[2].close)
            soon(lambda: connection.fileno() < 0)
            closing.start()
            assert exactly(received, len(content)) == content
            assert received.recv(1) == b""
        closing.join()
    opened[0].check()


def test_an_engine_that_starts_later(three):
    three.start()
    with three.connect(2, 0) as connection:
        engine = three.engine(0)
        assert exactly(connection, 1) == b"0"
    engine.close()


# ** strangers at the public port **
def stranger(three, player=0):
    found = socket.create_connection(split_address(three.plans[player].addresses[player]), 10)
    found.settimeout(30)
    return found


def push(three, content):
    with stranger(three) as connection:
        connection.sendall(content)
        return exactly(connection, 1 << 16)


STRANGERS = {
    "eight hostile bytes": lambda three: push(three, (2**63 - 1).to_bytes(8, "little")),
    "a web browser": lambda three: push(three, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a tunnel without TLS": lambda three: push(three, b"mpcc-link 1\n\x04\x00\x22" + bytes(34)),
}


@pytest.mark.parametrize("push", STRANGERS.values(), ids=STRANGERS)
def test_hostile_bytes_in_a_session(three, push):
    opened = three.start()
    assert push(three)[:1] in (b"", b"\x15")  # nothing, or a TLS alert
    all_talk(three)
    for tunnel in opened:
        tunnel.check()


def test_hostile_bytes_while_the_parties_meet(three):
    """From before the first player is there until all are: hundreds of connections that say nothing, too."""
    over, silent = threading.Event(), []

    def pester():
        while not over.is_set():
            try:
                silent.append(stranger(three))
                push(three, b"\xff" * 8)
            except OSError:
                over.wait(0.01)

    pestering = threading.Thread(target=pester)
    pestering.start()
    try:
        opened = three.start()
        assert all(not isinstance(t, Exception) for t in opened), opened
        silent += [stranger(three) for _ in range(100)]
        all_talk(three)
        for tunnel in opened:
            tunnel.check()
    finally:
        over.set()
        pestering.join()
        for connection in silent:
            connection.close()


def test_a_silent_connection_is_closed(three):
    """When others need its place."""
    three.start()
    with stranger(three) as first:
        others = [stranger(three) for _ in range(64)]
        assert ended(first)
        all_talk(three)
        for connection in others:
            connection.close()


def test_one_byte_now_and_then(three):
    """A handshake that never ends holds nobody up."""
    three.start()
    over = threading.Event()

    def drip():
        with stranger(three) as connection:
            for byte in b"\x16\x03\x01\x02\x00\x01" + bytes(500):
                if over.wait(0.02):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return

    dripping = [threading.Thread(target=drip) for _ in range(20)]
    for thread in dripping:
        thread.start()
    all_talk(three)
    over.set()
    for thread in dripping:
        thread.join()


def with_tls(three, identity, folder):
    certificate, key = save_identity(folder, "stranger", identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(stranger(three))


def ended(connection):
    """Whether it is closed without a word of the other side's."""
    try:
        return connection.recv(1) == b""
    except OSError:
        return True


@pytest.mark.parametrize("signed", [False, True], ids=["nobody's", "signed with the provider's key"])
def test_another_certificate(three, tmp_path, signed):
    opened = three.start()
    plan = three.plans[1]
    provider = Identity("P1", plan.certificates[1], plan.key.read_bytes())
    with with_tls(three, signed_by(provider, 2) if signed else make_identity(2), tmp_path / "stranger") as connection:
        connection.sendall(b"mpcc-link 1\n\x04\x00\x22\x02\x00" + bytes.fromhex(opened[0].session))
        assert ended(connection)
    all_talk(three)


def test_a_partys_stream_of_another_session(three, tmp_path):
    """The helper's own certificate, but not the session's number: one that was recorded, or guessed."""
    three.start()
    plan = three.plans[2]
    helper = Identity("P2", plan.certificates[2], plan.key.read_bytes())
    with with_tls(three, helper, tmp_path / "stranger") as connection:
        connection.sendall(b"mpcc-link 1\n\x04\x00\x22\x02\x00" + bytes(32))
        assert exactly(connection, 100) == b"mpcc-link 1\n\x06\x00\x01\x02"


# ** sessions that do not come about **
@pytest.mark.slow
def test_parties_with_other_programs(three):
    three.change(1, parts=PARTS | {"options": part(b"other"), "ir": part(b"other")})
    errors = three.start()
    assert all(isinstance(error, EngineError) for error in errors), errors
    # who sees it first says what differs and leaves; the others may learn no more than that it left
    named = [f"the {role} does not run the same program: ir, options differ" for role in ROLES]
    assert any(words in str(error) for words in named for error in errors), errors


def test_a_party_with_another_certificate(three, tmp_path):
    certificate, key = save_identity(tmp_path / "new", "helper", make_identity(2))
    three.change(2, certificate=certificate, key=key)
    client, _, helper = map(str, three.start(6.0))
    assert "helper did not connect within 6 s" in client and "for their certificate" in client
    assert "turned away" in helper and split_address(three.plans[0].addresses[0])[0] in helper


def test_two_parties_at_each_others_addresses(three):
    """A player's certificate is good for that player alone."""
    first, second, third = three.plans[2].addresses
    three.change(2, addresses=(second, first, third))
    assert "who answers for the" in str(three.start(4.0)[2])


def test_a_party_that_is_not_there(three):
    three.plans.pop()
    client, provider = map(str, three.start(3.0))
    for text in (client, provider):
        assert "the helper did not connect within 3 s" in text


def test_the_port_is_taken(three):
    with socket.socket() as taken:
        taken.bind(split_address(three.plans[0].addresses[0]))
        taken.listen()
        assert "the port cannot be used: Address already in use" in str(three.start(3.0)[0])


def test_a_tunnel_that_ends_in_the_session(three):
    opened = three.start()
    os.kill(opened[1].process.pid, signal.SIGKILL)
    for player in (0, 2):

        def lost(tunnel=opened[player]):
            try:
                tunnel.check()
            except EngineError as error:
                return str(error)
            return ""

        assert soon(lost) and f"the {ROLES[1]} has closed its connection" in lost()
    with pytest.raises(EngineError, match="tunnel to the other parties has ended"):
        opened[1].process.wait()
        opened[1].check()
