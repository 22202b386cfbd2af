"""Feeds changed files to readers, and counts what becomes of them.

A reader may refuse a file with one clean line, or accept it. Everything else is bad: another exception, a message with
control characters, more than a few seconds, more memory than allowed. Every case follows from a reader's name, the seed
and its number.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import random
import resource
import select
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mpcc.compiler.errors import MpccError
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import Reader, Said

SECONDS = 10  # of computing, for one file
MEMORY = 2**30  # bytes beside what the process has when it starts
GRACE = 300  # seconds after which a process that says nothing is ended
LONGEST_LINE = 1500


class TimeIsUp(BaseException):
    """No reader may catch it by accident."""


@dataclass
class Tally:
    """What became of the cases of one reader; `bad` are (case, what happened)."""

    tried: int = 0
    refused: int = 0
    accepted: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    bytes: int = 0  # the most memory that was resident

    def add(self, case: int, outcome: str, seconds: float, resident: int) -> None:
        self.tried += 1
        self.refused += outcome == "refused"
        self.accepted += outcome == "accepted"
        if outcome not in ("refused", "accepted"):
            self.bad.append((case, outcome))
        self.slowest, self.bytes = max(self.slowest, seconds), max(self.bytes, resident)


def content_of(reader: Reader, seed: int, case: int) -> bytes:
    """The file of a case; case 0 is the honest one."""
    if case == 0:
        return reader.seed()
    # a text as seed would be hashed with a salt where a version of Python does
    number = hashlib.sha256(f"{reader.name}/{seed}/{case}".encode()).digest()
    return mutated(reader.form, random.Random(number), reader.seed())


def outcome_of(reader: Reader, content: bytes) -> str:
    """ "refused", "accepted", or what is bad about it."""
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(content)
        return "accepted"
    except MpccError as error:
        return _clean(str(error))
    except Said as error:
        return _clean(str(error))
    except TimeIsUp:
        return f"more than {SECONDS} seconds"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:120]!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _stop(number: int, frame: object) -> None:
    raise TimeIsUp


def _clean(line: str) -> str:
    if not line or "\n" in line or len(line) > LONGEST_LINE:
        return f"a message that is not one line: {line[:200]!r}"
    if any((not c.isprintable() and not c.isspace()) or c in "\r\t\x85\u2028\u2029" for c in line):
        return f"a message with control characters: {line[:200]!r}"
    return "refused"


def resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def here(reader: Reader, cases: Sequence[int], seed: int) -> Tally:
    """Try cases in this process."""
    tally = Tally()
    for case in cases:
        content = content_of(reader, seed, case)
        begin = time.process_time()
        outcome = outcome_of(reader, content)
        tally.add(case, outcome, time.process_time() - begin, resident())
    return tally


def all_apart(readers: Sequence[Reader], counts: Sequence[int], seed: int, jobs: int) -> Iterator[tuple[Reader, Tally]]:
    """Each reader with its first cases; some readers at a time, in their order."""
    for reader in readers:
        reader.seed()
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda reader, count: apart(reader, range(count), seed), readers, counts)
        yield from zip(readers, found, strict=True)


def apart(reader: Reader, cases: Sequence[int], seed: int) -> Tally:
    """Try cases in a process of their own with limited memory; one that dies or hangs is replaced by another."""
    tally, rest = Tally(), list(cases)
    while rest:
        for case, outcome, seconds, used in _child(reader, rest, seed):
            tally.add(case, outcome, seconds, used)
            rest = rest[1:]
        if rest:
            tally.add(rest[0], "the process died, or had to be ended", GRACE, 0)
            rest = rest[1:]
    return tally


def _child(reader: Reader, cases: Sequence[int], seed: int) -> Iterator[tuple[int, str, float, int]]:
    """Outcomes as a forked process tells them, until all are told or it is no more."""
    receiving, sending = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _work(reader, cases, seed, sending)
        finally:
            os._exit(0)
    os.close(sending)
    try:
        with os.fdopen(receiving, "rb", buffering=0) as pipe:
            pending = b""
            while select.select([pipe], [], [], GRACE)[0] and (more := os.read(pipe.fileno(), 1 << 16)):
                *lines, pending = (pending + more).split(b"\n")
                yield from (tuple(json.loads(line)) for line in lines)  # type: ignore[misc]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _work(reader: Reader, cases: Sequence[int], seed: int, sending: int) -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    gc.freeze()
    for case in cases:
        try:
            tally = here(reader, [case], seed)
            outcome = tally.bad[0][1] if tally.bad else "refused" if tally.refused else "accepted"
        except Exception as error:
            tally, outcome = Tally(), f"the suite itself fails: {error!r}"
        line = json.dumps([case, outcome, tally.slowest, tally.bytes]) + "\n"
        os.write(sending, line.encode())
