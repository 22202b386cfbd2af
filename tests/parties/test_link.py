"""What tunnel ends say to each other: every way to say it wrongly, and any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcc.runtime.parties.agreement import part
from mpcc.runtime.parties.link import (
    PREFACE,
    SIZES,
    TRANSITIONS,
    Bye,
    Confirm,
    Data,
    Ended,
    Hello,
    Kind,
    Link,
    LocalProtocolError,
    Open,
    Ready,
    Reason,
    Refuse,
    RemoteProtocolError,
    Side,
    State,
)

PARTS = {"ir": part(b"ir"), "protocol": part(b"ring")}
HELLO, CONFIRM, OPEN = Hello(b"n" * 32, PARTS), Confirm(b"s" * 32), Open(b"s" * 32)
FRAMES = dict(zip(Kind, (HELLO, CONFIRM, Bye(), OPEN, Ready(), Refuse(Reason.BUSY)), strict=True))


def pair():
    """The link between players 2 and 0, who dials and who accepts."""
    return Link(Side.DIALLER, 2, 0), Link(Side.ACCEPTER, 0, 2)


def events(link, data, step=0):
    """All that `data` says, at once or in steps of some bytes."""
    found = []
    for at in range(0, len(data), step or len(data) or 1):
        link.feed(data[at : at + (step or len(data))])
        while (event := link.next_event()) is not None:
            found.append(event)
    return found


def met():
    dialler, accepter = pair()
    for frame in (HELLO, CONFIRM):
        assert events(accepter, dialler.send(frame)) == [frame]
        assert events(dialler, accepter.send(frame)) == [frame]
    assert dialler.state is accepter.state is State.MET
    return dialler, accepter


def streaming():
    dialler, accepter = pair()
    assert events(accepter, dialler.send(OPEN)) == [OPEN]
    assert events(dialler, accepter.send(Ready())) == [Ready()]
    return dialler, accepter


# ** what is right **
def test_a_meeting():
    dialler, accepter = met()
    assert events(accepter, dialler.send(Bye())) == [Bye()]
    assert dialler.state is accepter.state is State.CLOSED
    assert events(accepter, b"whatever comes after it") == []


def test_confirmations_may_cross():
    dialler, accepter = pair()
    events(accepter, dialler.send(HELLO))
    events(dialler, accepter.send(HELLO))
    first, second = dialler.send(CONFIRM), accepter.send(CONFIRM)
    assert events(accepter, first) == events(dialler, second) == [CONFIRM]
    assert dialler.state is accepter.state is State.MET


def test_a_stream_carries_any_bytes():
    dialler, accepter = streaming()
    content = bytes(range(256)) * 3
    assert events(accepter, content) == [Data(content)] and events(dialler, content) == [Data(content)]
    accepter.feed(b"")
    assert accepter.next_event() == Ended(orderly=True)


def test_the_first_bytes_of_a_stream_may_come_with_ready():
    dialler, accepter = pair()
    events(accepter, dialler.send(OPEN))
    assert events(dialler, accepter.send(Ready()) + b"engine") == [Ready(), Data(b"engine")]


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal(reason):
    dialler, accepter = pair()
    events(accepter, dialler.send(OPEN))
    assert events(dialler, accepter.send(Refuse(reason))) == [Refuse(reason)]
    assert dialler.state is State.CLOSED


def test_one_byte_at_a_time():
    dialler, accepter = pair()
    assert events(accepter, dialler.send(HELLO), step=1) == [HELLO]


# ** what is wrong **
def frame(kind, content, size=None):
    return PREFACE + bytes([kind]) + (len(content) if size is None else size).to_bytes(2, "big") + content


def hello(*entries, count=None, players=(2, 0)):
    encoded = b"".join(bytes([len(name)]) + name + bytes(32) for name in entries)
    return frame(Kind.HELLO, bytes(players) + bytes(32) + bytes([len(entries) if count is None else count]) + encoded)


MALFORMED = {
    "eight hostile bytes": (b"\xff" * 8, "no tunnel of this version"),
    "a web browser": (b"GET /status HTTP/1.1\r\n\r\n", "no tunnel of this version"),
    "another version": (b"mpcc-link 2\n", "no tunnel of this version"),
    "an unknown kind": (frame(7, b""), "unknown kind 7"),
    "kind nought": (frame(0, b""), "unknown kind 0"),
    "a stream that is ready unasked": (frame(Kind.READY, b""), "READY, while the state is: new"),
    "a confirmation first": (frame(Kind.CONFIRM, bytes(32)), "CONFIRM, while the state is: new"),
    "a farewell first": (frame(Kind.BYE, b""), "BYE, while the state is: new"),
    "a refusal by who asks": (frame(Kind.REFUSE, b"\1"), "REFUSE, while the state is: new"),
    "a long hello": (frame(Kind.HELLO, b"", size=65535), "HELLO of 65535 bytes"),
    "a short hello": (frame(Kind.HELLO, bytes(34)), "HELLO of 34 bytes"),
    "a long request": (frame(Kind.OPEN, bytes(35)), "OPEN of 35 bytes"),
    "somebody else's hello": (hello(b"ir", players=(1, 0)), "from player 1 to 0, on the link from player 2 to 0"),
    "a hello to somebody else": (hello(b"ir", players=(2, 1)), "from player 2 to 1"),
    "somebody else's request": (frame(Kind.OPEN, bytes([1, 0]) + bytes(32)), "from player 1 to 0"),
    "no parts": (hello(), "0 parts"),
    "too many parts": (hello(*(b"p%02d" % i for i in range(17)), count=17), "17 parts"),
    "fewer parts than said": (hello(b"ir", count=2), "ends too early"),
    "more parts than said": (hello(b"ir", b"p", count=1), "more than its parts"),
    "a part without a name": (hello(b"", count=1), "ends too early"),
    "a part twice": (hello(b"ir", b"ir"), "another order"),
    "parts in another order": (hello(b"p", b"ir"), "another order"),
    "a name of control characters": (hello(b"\x1b[2J"), "no plain name"),
    "a name that is no ASCII": (hello(b"\xff\xfe"), "no plain name"),
}


@pytest.mark.parametrize("data, message", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("step", [0, 1])
def test_malformed(data, message, step):
    _, accepter = pair()
    with pytest.raises(RemoteProtocolError, match=message):
        events(accepter, data, step)
    assert accepter.state is State.CLOSED and events(accepter, data) == []


def test_no_more_is_kept_than_a_frame():
    """What is too long is refused when its length is there, not when it has come."""
    for kind, (_, most) in SIZES.items():
        _, accepter = pair()
        with pytest.raises(RemoteProtocolError):
            events(accepter, PREFACE + bytes([kind]) + (most + 1).to_bytes(2, "big"))


def test_an_unknown_reason():
    dialler, _ = pair()
    dialler.send(OPEN)
    with pytest.raises(RemoteProtocolError, match="unknown reason 9"):
        events(dialler, frame(Kind.REFUSE, b"\x09"))


def test_bytes_before_the_stream_is_ready():
    dialler, accepter = pair()
    events(accepter, dialler.send(OPEN))
    with pytest.raises(RemoteProtocolError):
        events(accepter, b"engine")


@pytest.mark.parametrize("kept", range(1, len(PREFACE) + 40))
def test_a_connection_that_ends_in_the_middle(kept):
    dialler, accepter = pair()
    events(accepter, dialler.send(HELLO)[:kept])
    accepter.feed(b"")
    if kept == len(PREFACE):
        assert accepter.next_event() == Ended(orderly=False)
    else:
        with pytest.raises(RemoteProtocolError, match="in the middle of a frame"):
            accepter.next_event()


def test_a_meeting_that_ends_without_a_farewell():
    _, accepter = met()
    accepter.feed(b"")
    assert accepter.next_event() == Ended(orderly=False)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("side", Side)
def test_this_side_says_only_what_the_table_allows(state, side):
    for kind, said in FRAMES.items():
        link = Link(side, 0, 1)
        link.state = state
        if (side, kind) in TRANSITIONS[state]:
            link.send(said)
            assert link.state is TRANSITIONS[state][side, kind]
        else:
            with pytest.raises(LocalProtocolError):
                link.send(said)
            assert link.state is state


# Whatever the other side sends is an event, or ends in RemoteProtocolError: never another error, never more kept than
# a frame, and the same whether it comes at once or byte by byte.
def outcome(link, data, step):
    """The events (bytes of a stream joined), then the error's text or the state."""
    found, last = [], ""
    try:
        for at in range(0, len(data), step):
            link.feed(data[at : at + step])
            while (event := link.next_event()) is not None:
                joined = isinstance(event, Data) and found and isinstance(found[-1], Data)
                found[-1:] = [Data(found[-1].content + event.content)] if joined else [*found[-1:], event]
    except RemoteProtocolError as error:
        last = str(error)
    return found, last, link.state


STARTS = {
    "new": lambda: pair()[1],
    "asking": lambda: _asking(),
    "greeting": lambda: _greeting(),
    "met": lambda: met()[1],
    "stream": lambda: streaming()[1],
}


def _asking():
    dialler, _ = pair()
    dialler.send(OPEN)
    return dialler


def _greeting():
    dialler, _ = pair()
    dialler.send(HELLO)
    return dialler


plausible = st.builds(
    lambda kind, content, size: bytes([kind]) + (len(content) if size is None else size).to_bytes(2, "big") + content,
    st.integers(0, 8),
    st.binary(max_size=80),
    st.none() | st.integers(0, 65535),
)
mutated = st.builds(
    lambda data, at, value: data[: at % len(data)] + bytes([value]) + data[at % len(data) + 1 :],
    st.sampled_from([pair()[0].send(HELLO), pair()[0].send(OPEN), hello(b"a", b"b", b"c")]),
    st.integers(0, 10_000),
    st.integers(0, 255),
)


@given(
    st.sampled_from(sorted(STARTS)),
    st.booleans(),
    st.lists(plausible | mutated | st.binary(max_size=40), max_size=5),
    st.integers(1, 7),
)
def test_any_bytes(start, preface, pieces, step):
    data = (PREFACE if preface else b"") + b"".join(pieces)
    at_once = outcome(STARTS[start](), data, max(1, len(data)))
    assert at_once == outcome(STARTS[start](), data, 1) == outcome(STARTS[start](), data, step)
