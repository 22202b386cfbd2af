"""The emitted text in every mode, run by the stand-in: stored shares give the same answers as fresh ones."""

import numpy as np
import primitives
import pytest
import standin
from ring_cases import make

from mpcc.runtime.mp_spdz.state import SEAL

NAMES = ["linear", "products", "loops"]


def streams(case, *client):
    public, private = case.region(True), case.region(False)
    parts = ([public, *client], [public, private], [public])
    return {player: np.concatenate([np.zeros(0, np.int64), *own]) for player, own in enumerate(parts)}


def once(case):
    outputs = standin.execute(case.source.text, inputs=streams(case, case.client_stream)).private[0]
    return np.concatenate(outputs)


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
        given[1] = case.region(True)
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
