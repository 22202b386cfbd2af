"""The emitted text in every mode, run by the stand-in: stored shares give the same answers as fresh ones."""

import numpy as np
import primitives
import pytest
import standin
from ring_cases import make

from mpcc.runtime.mp_spdz.counters import NO_LIMIT
from mpcc.runtime.mp_spdz.state import SEAL

NAMES = ["linear", "products", "loops"]


def streams(case, *client):
    public, private = case.region(True), case.region(False)
    most = flag(NO_LIMIT)
    parts = ([public, most, *client], [public, private, most, most], [public, most])
    return {player: np.concatenate([np.zeros(0, np.int64), *own]) for player, own in enumerate(parts)}


def once(case):
    public = case.region(True)
    parts = ([public, case.client_stream], [public, case.region(False)], [public])
    given = {player: np.concatenate(own) for player, own in enumerate(parts)}
    return np.concatenate(standin.execute(case.source.text, inputs=given).private[0])


def flag(value):
    return np.array([value], np.int64)


def provisioned(case):
    kept = {}
    given = {0: flag(0)[:0], 1: np.append(case.region(False), SEAL), 2: flag(0)[:0]}
    assert not standin.execute(case.source.text, args=("provision",), inputs=given, persistence=kept).private
    return kept


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["serve", "infer"])
def test_requests(name, mode):
    """Two requests: each answer is the outputs and a zero."""
    case = make(getattr(primitives, name))
    given = streams(case, case.client_stream, flag(1), case.client_stream, flag(0))
    kept = provisioned(case) if mode == "infer" else None
    if mode == "infer":
        given[1] = np.concatenate([case.region(True), flag(NO_LIMIT), flag(NO_LIMIT)])
    got = standin.execute(case.source.text, args=(mode,), inputs=given, persistence=kept).private[0]
    want = np.append(once(case), 0)
    assert np.concatenate(got).tolist() == [*want, *want]


@pytest.mark.parametrize("name", NAMES)
def test_shares_end_with_the_seal(name):
    case = make(getattr(primitives, name))
    assert provisioned(case)["sint"].tolist() == [*case.region(False), SEAL]


def test_a_wrong_seal_ends_the_program():
    case = make(primitives.linear)
    kept = provisioned(case)
    kept["sint"][-1] += 1
    with pytest.raises(standin.StandinError, match="not of one provisioning"):
        standin.execute(
            case.source.text, args=("infer",), inputs=streams(case, case.client_stream, flag(0)), persistence=kept
        )


def limited(case, own, told, count, player):
    """Answers of a session with `count` requests, as a player sees it whose own number is `own`."""
    words = [part for _ in range(count - 1) for part in (case.client_stream, flag(1))]
    given = streams(case, *words, case.client_stream, flag(0))
    given[1][-1] = told
    given[player][case.region(True).size + (case.region(False).size if player == 1 else 0)] = own
    got = standin.execute(case.source.text, args=("serve",), inputs=given, seen_by=player).private[0]
    return np.concatenate(got).size // (once(case).size + 1)


@pytest.mark.parametrize(
    "own, told, count, player, answered",
    [
        (NO_LIMIT, 2, 3, 0, 2),  # the client and the helper hear of the provider's number
        (NO_LIMIT, 2, 3, 2, 2),
        (2, 2, 3, 1, 2),
        (2, 99, 3, 1, 2),  # whatever the others make of it, the provider stops at its own
        (2, 2, 2, 1, 2),
        (2, 2, 1, 1, 1),  # fewer were asked for
    ],
)
def test_the_provider_ends_the_session(own, told, count, player, answered):
    assert limited(make(primitives.linear), own, told, count, player) == answered
