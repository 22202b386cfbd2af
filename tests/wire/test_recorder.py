"""The checker itself: what is TLS, and what only looks like it."""

import os
import socket
import threading

import pytest
from recorder import NotTls, Recorder, records, without_greeting


def record(kind, content, version=b"\x03\x03"):
    return bytes([kind]) + version + len(content).to_bytes(2, "big") + content


HELLO = record(22, b"\x01" + bytes(40), b"\x03\x01")


def test_records():
    assert records(HELLO + record(20, b"\x01") + record(23, bytes(100))) == [(22, 41), (20, 1), (23, 100)]
    assert records(b"") == []


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(8) + HELLO,
        HELLO + b"seed" * 8,
        HELLO + record(23, bytes(100))[:-1],
        HELLO + record(24, bytes(10)),
        HELLO + record(23, bytes(100), b"\x02\x00"),
        record(23, bytes(100)),
        record(22, b"\x05" + bytes(40)),
        HELLO + b"\x17\x03\x03\xff\xff" + bytes(65535),
    ],
    ids=range(9),
)
def test_what_is_no_tls(stream):
    with pytest.raises(NotTls):
        records(stream)


def test_a_greeting_and_nothing_else_before_tls():
    assert without_greeting((3).to_bytes(4, "little") + b"0P1" + HELLO) == HELLO
    for stream in (HELLO, (3).to_bytes(4, "little") + b"\0\1\2", (1 << 40).to_bytes(8, "big")):
        with pytest.raises(NotTls):
            without_greeting(stream)


def test_everything_is_recorded():
    with socket.create_server(("127.0.0.1", 0)) as listening, Recorder(listening.getsockname()) as recorder:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(("127.0.0.1", recorder.port)) as connection:
            connection.sendall(b"hello")
            assert connection.recv(100) == b"HELLO"
        thread.join()
        (recorded,) = recorder.connections
        assert (recorded.sent, recorded.received) == (b"hello", b"HELLO")
