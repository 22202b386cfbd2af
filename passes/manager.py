"""Runs the lists of passes: in order, verified after each, timed, printed where somebody asked for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from mpcc.compiler.errors import InternalError
from mpcc.compiler.graph.text import print_graph
from mpcc.compiler.graph.verify import verify as verify_graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.text import print_ring
from mpcc.compiler.ring.verify import verify as verify_ring
from mpcc.passes import GRAPH, RING, Pass
from mpcc.passes.calls import GRAPH_CALLS, RING_CALLS, GraphContext, Held, RingContext, RingHeld

EVERY = "all"


@dataclass
class Time:
    """CPU seconds of this process: in a pass, and in the verifier after it, over all runs."""

    runs: int = 0
    seconds: float = 0.0
    verifying: float = 0.0


@dataclass
class Watch:
    """Who looks on: what is left out, what is printed (EVERY: after each pass), what took how long."""

    without: frozenset[str] = frozenset()
    print_after: frozenset[str] = frozenset()
    write: Callable[[str], object] = field(default_factory=lambda: sys.stderr.write)
    stage: Callable[[str], None] = lambda name: None
    times: dict[str, Time] = field(default_factory=dict)
    inside: list[float] = field(default_factory=lambda: [0.0])  # seconds of steps inside those that run now

    def prints(self, name: str) -> bool:
        return EVERY in self.print_after or name in self.print_after

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """One run of a pass, or of a step between or inside passes, which counts for itself."""
        known, before = self.times.setdefault(name, Time()), time.process_time()
        self.inside.append(0.0)
        yield
        spent = time.process_time() - before
        known.runs += 1
        known.seconds += spent - self.inside.pop()
        self.inside[-1] += spent

    def silent(self) -> Watch:
        """The same, but it prints nothing."""
        return replace(self, print_after=frozenset())


def run_graph_passes(
    held: Held, context: GraphContext, watch: Watch, *, since: str = "", before: str = ""
) -> tuple[Held, dict[str, Held]]:
    """Run GRAPH on a captured graph, or the part of it from the pass `since` on, up to `before`.

    Returns:
        The result, and what each pass left (of several entries of one name the last).

    Raises:
        MpccError: see the passes.
        InternalError: a pass broke the graph; the message names the pass, node, layer and source line.
    """
    left: dict[str, Held] = {}
    for entry in _part(GRAPH, since, before, watch):
        watch.stage(entry.name)
        with watch.timed(entry.name):
            held = GRAPH_CALLS[entry.name](held, context)
        with _verifying(watch, entry):
            verify_graph(held.graph, entry.leaves, after=entry.name, calibrated=bool(context.samples))
        left[entry.name] = held
        if watch.prints(entry.name):
            watch.write(f"# after {entry.name}\n{print_graph(held.graph)}")
    return held, left


def run_ring_passes(
    held: RingHeld, context: RingContext, watch: Watch, *, since: str = "", before: str = ""
) -> RingHeld:
    """Run RING, or the part of it from the pass `since` on, up to `before`, on a program that was verified.

    Raises:
        InternalError: a pass broke the program; the message names the pass.
    """
    placed: bool | None = None
    for entry in _part(RING, since, before, watch):
        with watch.timed(entry.name):
            new = RING_CALLS[entry.name](held, context)
        if new.ring is not held.ring or placed != (entry.leaves == "placed"):
            placed = entry.leaves == "placed"
            with _verifying(watch, entry):
                check_ring(new.ring, entry.name, placed=placed, known=held.ring)
        held = new
        if watch.prints(entry.name):
            watch.write(f"# after {entry.name}\n{print_ring(held.ring)}")
    return held


def check_ring(ring: RingGraph, after: str, *, placed: bool = False, known: RingGraph | None = None) -> None:
    """Verify a ring program and say what made it; what stood in the verified `known` is not looked at."""
    try:
        verify_ring(ring, final=placed, known=known)
    except InternalError as error:
        raise InternalError(f"after {after}: {error}") from None


@contextmanager
def _verifying(watch: Watch, entry: Pass) -> Iterator[None]:
    before = time.process_time()
    yield
    watch.times[entry.name].verifying += time.process_time() - before


def _part(passes: Sequence[Pass], since: str, before: str, watch: Watch) -> list[Pass]:
    """The entries from the first one of the name `since` up to the first one of the name `before`, if not left out."""
    names = [entry.name for entry in passes]
    for name in {since, before} - {""} - set(names):
        raise InternalError(f"there is no pass {name}")
    start, stop = names.index(since) if since else 0, names.index(before) if before else len(names)
    return [entry for entry in passes[start:stop] if entry.name not in watch.without]


def _check_lists(calls: Mapping[str, object], passes: Sequence[Pass]) -> None:
    if different := set(calls) ^ {entry.name for entry in passes}:
        raise InternalError(f"passes/__init__.py and passes/calls.py differ in {', '.join(sorted(different))}")


_check_lists(GRAPH_CALLS, GRAPH)
_check_lists(RING_CALLS, RING)
