"""What MP-SPDZ's parties counted: the timers that the emitted program starts and stops, as a party prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum

from mpcc.compiler.errors import EngineError
from mpcc.runtime.engine import Measured
from mpcc.runtime.mp_spdz.home import NAME
from mpcc.runtime.parties.processes import Party

_STOPPED = re.compile(r"^Stopped timer (\d+) at (\S+) \((\S+) MB, (\d+) rounds\)", re.MULTILINE)
_MOST = re.compile(r"^Requests of this session: at most (\d+)$", re.MULTILINE)
NO_LIMIT = 1 << 40  # requests of a session, where the provider names no number
Count = tuple[float, int, int]  # seconds, bytes, rounds


class Timer(IntEnum):
    """The timers of the emitted program."""

    INFERENCE = 1
    WEIGHTS = 2
    INPUTS = 3
    OUTPUTS = 4
    CONTROL = 5


Counts = Mapping[int, Sequence[Count]]


def counts_of(party: Party) -> Counts:
    """What each timer showed each time it was stopped; timers add up."""
    result: dict[int, list[Count]] = {}
    for n, s, mb, r in _STOPPED.findall(party.stdout.read_text("utf-8", "replace")):
        result.setdefault(int(n), []).append((float(s), round(float(mb) * 1e6), int(r)))
    return result


def limit_of(party: Party) -> int | None:
    """After how many requests the provider said that it ends the session; None if it did not."""
    said = _MOST.search(party.stdout.read_text("utf-8", "replace"))
    return None if said is None or int(said[1]) >= NO_LIMIT else int(said[1])


def check_counts(player: int, counts: Counts, done: int) -> None:
    """EngineError if a party did not report `done` inferences and all that is around them."""
    each = (Timer.INFERENCE, Timer.INPUTS, Timer.OUTPUTS)
    whole = Timer.WEIGHTS in counts and all(len(counts.get(timer, ())) == done for timer in each)
    if not whole or len(counts.get(Timer.CONTROL, ())) != done + 1:
        raise EngineError("a party did not report what it sent", where=f"party {player}")


def total(counts: Counts, timer: Timer) -> Count:
    """What a timer showed last; zeros if it never stopped."""
    return counts.get(timer, [(0.0, 0, 0)])[-1]


def inference(parties: Sequence[Counts], number: int) -> Measured:
    """One inference by itself."""
    own = [_between(counts[Timer.INFERENCE], number) for counts in parties]
    around = [_between(counts[timer], number)[1] for counts in parties for timer in (Timer.INPUTS, Timer.OUTPUTS)]
    control = [_between(counts[Timer.CONTROL], number + 1)[1] for counts in parties]
    return Measured(
        engine=NAME,
        bytes_by_party=tuple(b for _, b, _ in own),
        rounds_by_party=tuple(r for *_, r in own),
        seconds=max(s for s, _, _ in own),
        provisioning_bytes=0,
        provisioning_seconds=0.0,
        input_bytes=sum(around),
        compile_seconds=0.0,
        control_bytes=sum(control),
    )


def _between(counts: Sequence[Count], number: int) -> Count:
    """What a timer counted between being stopped for the time before and for time `number`."""
    (s0, b0, r0), (s1, b1, r1) = counts[number - 1] if number else (0.0, 0, 0), counts[number]
    return s1 - s0, b1 - b0, r1 - r0
