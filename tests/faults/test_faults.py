"""Whatever goes wrong: one line, the right exit code, nothing left, nothing leaked, and the next run works."""

from __future__ import annotations

import re

import pytest
from mp_spdz_here import needs_mp_spdz

from tests.faults.fault import Fault
from tests.faults.place import STAND_IN
from tests.faults.table import FAULTS

LONGEST = 600  # characters of a line that a user still reads


def marked(fault: Fault):
    """A parameter: each fault is slow, and needs its engine."""
    mark = pytest.mark.slow if fault.engine == STAND_IN else pytest.mark.spu
    param = pytest.param(fault, id=f"{fault.stage}: {fault.title}", marks=[pytest.mark.slow, mark])
    return param if fault.engine in (STAND_IN, "spu") else pytest.param(fault, id=param.id, marks=_MP_SPDZ)


@needs_mp_spdz
def _on_mp_spdz():
    """Has the marks of every test on a real engine."""


_MP_SPDZ = list(_on_mp_spdz.pytestmark)


def check_end(who, ended, want):
    assert ended.code == want.code, (who, ended)
    assert "Traceback" not in ended.err + ended.out, (who, ended)
    if not want.says:
        assert "error" not in ended.err, (who, ended)
        return
    *notes, line = ended.err.splitlines() or [""]
    assert re.match(r"mpcc: (error: |interrupted|ended by SIGTERM)", line) and re.search(want.says, line), (
        who,
        want.says,
        ended,
    )
    assert line.isprintable() and len(line) < LONGEST and not any("error" in note for note in notes), (who, ended)


@pytest.mark.parametrize("fault", [marked(f) for f in FAULTS])
def test_fault(places, fault):
    place = places(fault.engine)
    try:
        seen = fault.cause(place)
    finally:
        place.stop()
    assert set(seen) == set(fault.ends)
    for who, ended in seen.items():
        check_end(who, ended, fault.ends[who])
    place.check_nothing_left()
    place.check_nothing_leaked(seen)
    if not fault.damages:
        place.works()


@pytest.fixture(autouse=True)
def repaired(request, places):
    """The folders are whole before the next fault, as a user would repair them."""
    yield
    fault = request.node.callspec.params.get("fault") if hasattr(request.node, "callspec") else None
    if fault is not None:
        places(fault.engine).restore()


@pytest.mark.slow
def test_after_repair_the_next_run_works(places):
    """What was changed by hand in the tests above left nothing behind."""
    places(STAND_IN).works()
