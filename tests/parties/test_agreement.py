"""All parties have one program and one session, or the name of what differs."""

import os
from itertools import permutations

import pytest

from mpcc.runtime.parties.agreement import Disagreement, Meeting, check_parts, differing, digest_of, part, session_of

PARTS = {"ir": part(b"ir"), "options": part(b"options"), "protocol": part(b"ring"), "mpcc": part(b"0.1.0")}


def meetings(parts=(PARTS, PARTS, PARTS)):
    return [Meeting(player, len(parts), parts[player], os.urandom(32)) for player in range(len(parts))]


def test_three_players_agree_in_every_order():
    for order in permutations([(a, b) for a in range(3) for b in range(3) if a != b], 6):
        found = meetings()
        for teller, hearer in order:
            found[hearer].greet(teller, found[teller].nonces[teller], PARTS)
        (session,) = {m.session for m in found}
        assert not any(m.agreed for m in found)
        for teller, hearer in order:
            found[hearer].confirm(teller, session)
        assert all(m.agreed for m in found)


def test_no_session_is_that_of_another_time():
    first, second = meetings(), meetings()
    for found in (first, second):
        for teller in range(3):
            for hearer in {0, 1, 2} - {teller}:
                found[hearer].greet(teller, found[teller].nonces[teller], PARTS)
    assert first[0].session != second[0].session


@pytest.mark.parametrize("name", PARTS)
def test_what_differs_has_a_name(name):
    found, other = meetings()[0], {**PARTS, name: part(b"another")}
    with pytest.raises(Disagreement) as caught:
        found.greet(2, os.urandom(32), other)
    assert (caught.value.player, caught.value.names) == (2, (name,))
    assert digest_of(other) != digest_of(PARTS)


def test_a_part_that_one_side_does_not_have():
    assert differing(PARTS, {k: v for k, v in PARTS.items() if k != "mpcc"}) == ("mpcc",)
    assert differing(PARTS, {**PARTS, "more": part(b"")}) == ("more",)


def test_a_player_that_tells_each_other_one_another_number():
    """Then they have different sessions, and say so when they confirm."""
    found = meetings()
    for hearer, nonce in ((0, b"a" * 32), (1, b"b" * 32)):
        found[hearer].greet(2, nonce, PARTS)
    found[0].greet(1, found[1].nonces[1], PARTS)
    found[1].greet(0, found[0].nonces[0], PARTS)
    with pytest.raises(Disagreement, match="session"):
        found[0].confirm(1, found[1].session)


def test_a_confirmation_that_comes_before_the_session_is_known():
    found = meetings()
    found[0].greet(1, found[1].nonces[1], PARTS)
    found[0].confirm(1, bytes(32))
    assert not found[0].agreed and found[0].missing == (2,)
    with pytest.raises(Disagreement, match="session"):
        found[0].greet(2, found[2].nonces[2], PARTS)


def test_who_comes_back():
    """Before the session stands a player may connect anew, with a new number; afterwards not."""
    found = meetings()[0]
    found.greet(1, b"1" * 32, PARTS)
    found.greet(1, b"2" * 32, PARTS)
    found.greet(2, b"3" * 32, PARTS)
    assert found.session == session_of([found.nonces[0], b"2" * 32, b"3" * 32], PARTS)
    with pytest.raises(Disagreement, match="session"):
        found.greet(1, b"1" * 32, PARTS)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"IR": part(b"")},
        {"ir": "00"},
        {"ir\n": part(b"")},
        {"ir": "G" * 64},
        {f"p{i}": part(b"") for i in range(17)},
    ],
)
def test_parts_that_cannot_be(parts):
    with pytest.raises(ValueError):
        check_parts(parts)
