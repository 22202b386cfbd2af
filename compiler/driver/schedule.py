"""From the graph inside MPC to a ring program: lowering, the ring passes, and the price of what comes out."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from mpcc.compiler.cost import Cost, estimate
from mpcc.compiler.driver.options import Options
from mpcc.compiler.findings import Applied
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import Lowered, lower
from mpcc.compiler.ring.ir import RingGraph
from mpcc.passes import RING
from mpcc.passes.calls import Magnitudes, RingContext, RingHeld
from mpcc.passes.manager import Watch, check_ring, run_ring_passes
from mpcc.passes.ring.choose_truncations import Choice

SECOND, CHOICE = "defer_rescales", "choose_truncations"  # where the second half of RING begins and ends


@dataclass(frozen=True)
class Form:
    """One form of the program inside MPC, scheduled, and what an inference costs in it."""

    settings: Settings
    applied: tuple[Applied, ...]
    ring: RingGraph
    truncations: Choice | None
    cost: Cost


@dataclass(frozen=True)
class Merged:
    """A lowered region after the first half of the ring passes, and with every truncation of it placed."""

    lowered: Lowered
    ring: RingGraph
    placed: RingGraph


class Forms:
    """Makes and prices forms of one region; what was made before is not made again.

    `budget` is the failure probability that local truncations may add, `magnitudes` what finds how large the arguments
    of truncations are.
    """

    def __init__(self, region: Graph, options: Options, budget: float, magnitudes: Magnitudes, watch: Watch) -> None:
        self.region, self.options, self.budget, self.magnitudes, self.watch = (
            region,
            options,
            budget,
            magnitudes,
            watch.silent(),
        )
        self._merged: list[tuple[Settings, Merged]] = []
        self._rough: list[tuple[Settings, Cost]] = []
        self._made: list[tuple[RingGraph, bool, bool, Form]] = []  # merged program, lean, local truncations deferred

    def make(self, settings: Settings) -> Form:
        """The form in these settings; equal programs are scheduled once."""
        merged = self._merge(settings)
        for ring, lean, deferred, form in self._made:
            if (ring, lean, deferred) == (merged.ring, settings.lean, settings.defer_local):
                return replace(form, settings=settings)
        held = schedule(merged.ring, settings, self.budget, self.magnitudes, self.watch, merged.placed)
        with self.watch.timed("price"):
            cost = estimate(held.ring, self.options.protocol, network=self.options.network)
        form = Form(settings, merged.lowered.applied, held.ring, held.choice, cost)
        self._made.append((merged.ring, settings.lean, settings.defer_local, form))
        return form

    def show(self, form: Form, watch: Watch) -> None:
        """Run the passes once more for the form that was chosen, for `watch` to print."""
        if any(watch.prints(entry.name) for entry in RING):
            merged = merge(self._merge(form.settings).lowered.ring, watch)
            schedule(merged, form.settings, self.budget, self.magnitudes, watch)

    def rough_cost(self, settings: Settings) -> Cost:
        """What a form would cost with every truncation in place and none of them local: nothing is run for it."""
        for known, cost in self._rough:
            if known == settings:
                return cost
        merged = self._merge(settings)
        placed = place(merged.ring, settings, None, self.watch) if settings.defer_local else merged.placed
        with self.watch.timed("price"):
            cost = estimate(placed, self.options.protocol, network=self.options.network)
        self._rough.append((settings, cost))
        return cost

    def _merge(self, settings: Settings) -> Merged:
        for known, merged in self._merged:
            if known == settings:
                return merged
        with self.watch.timed("lower"):
            lowered = lower(self.region, settings)
        check_ring(lowered.ring, "lower")
        ring = merge(lowered.ring, self.watch)
        merged = Merged(lowered, ring, place(ring, settings, frozenset(), self.watch))
        self._merged.append((settings, merged))
        return merged


def merge(ring: RingGraph, watch: Watch) -> RingGraph:
    """The first half of the ring passes, which no setting changes."""
    return run_ring_passes(RingHeld(ring), RingContext(), watch, before=SECOND).ring


def place(merged: RingGraph, settings: Settings, may_defer: Set[str] | None, watch: Watch) -> RingGraph:
    """The second half of the ring passes up to the choice of truncations; see `RingContext.may_defer`."""
    context = RingContext(_variant(settings), may_defer)
    return run_ring_passes(RingHeld(merged), context, watch, since=SECOND, before=CHOICE).ring


def schedule(
    merged: RingGraph,
    settings: Settings,
    budget: float = 0.0,
    magnitudes: Magnitudes = lambda ring: {},
    watch: Watch | None = None,
    placed: RingGraph | None = None,
) -> RingHeld:
    """The second half of the ring passes on a merged program.

    Deferring a truncation adds its bits to a later one. That is free where truncations are safe; a local one fails the
    more often the larger its argument is. So the local ones are chosen in the program with every truncation where it
    was asked for (`placed`, made here if it is not given), and only the others are deferred, unless settings say to
    defer all of them.
    """
    watch = watch or Watch()
    local = settings.lean and budget > 0.0 and "choose_truncations" not in watch.without
    context = RingContext(_variant(settings), None, None, budget if local else 0.0, magnitudes)
    if not local or settings.defer_local:
        return run_ring_passes(RingHeld(merged), context, watch, since=SECOND)
    placed = placed or place(merged, settings, frozenset(), watch.silent())
    trial = run_ring_passes(RingHeld(placed), context, watch.silent(), since=CHOICE)
    final = replace(context, may_defer=_safe(trial.ring), choice=trial.choice)
    return run_ring_passes(RingHeld(merged), final, watch, since=SECOND)


def _variant(settings: Settings) -> str:
    return "nearest" if settings.truncation == "nearest" else "safe"


def _safe(ring: RingGraph) -> frozenset[str]:
    return frozenset(n.name for n, _ in ring.walk() if n.op == "trunc" and n.attr("variant") == "safe")
