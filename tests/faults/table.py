"""All faults, in the order of the page."""

from __future__ import annotations

from tests.faults.attacks import ATTACKS
from tests.faults.before import BEFORE
from tests.faults.engine_fails import ENGINE_FAILS
from tests.faults.fault import Fault, Stage
from tests.faults.machine import MACHINE
from tests.faults.on_the_wire import ON_THE_WIRE
from tests.faults.sessions import SESSIONS

_STAGES = list(Stage)
FAULTS: list[Fault] = sorted(
    [*BEFORE, *MACHINE, *ENGINE_FAILS, *SESSIONS, *ON_THE_WIRE, *ATTACKS],
    key=lambda fault: _STAGES.index(fault.stage),
)
