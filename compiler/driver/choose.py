"""The choice among the forms of a program: the one that is fastest on its network, by the cost model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from mpcc.compiler.cost import Cost
from mpcc.compiler.driver.candidates import Variant
from mpcc.compiler.findings import Alternative
from mpcc.compiler.lowering import Settings

NEARLY = 1.02  # more precise formats are taken as long as they take at most this much longer
WORTH = 0.98  # a variant that sends more is taken if it leaves less than this of the seconds


class Priced(Protocol):
    """A form of the program that was made far enough to know its cost."""

    @property
    def settings(self) -> Settings: ...
    @property
    def cost(self) -> Cost: ...


C = TypeVar("C", bound=Priced)
T = TypeVar("T")


def remembered(function: Callable[[Settings], T]) -> Callable[[Settings], T]:
    """`function`, called once for equal settings."""
    known: list[tuple[Settings, T]] = []  # settings hold a dict and have no hash; there are few of them

    def answer(settings: Settings) -> T:
        for asked, result in known:
            if asked == settings:
                return result
        result = function(settings)
        known.append((settings, result))
        return result

    return answer


def choose(
    base: Settings,
    formats: Sequence[Variant],
    variants: Sequence[Variant],
    make: Callable[[Settings], C],
    rough: Callable[[Settings], Cost],
) -> tuple[C, tuple[Alternative, ...]]:
    """(the chosen form, all that were considered).

    `make` is dear for large programs: what is slower already by `rough`, before truncations are chosen, is not made.

    Variants are tried one after the other in the format of the profile, each on top of those that were kept; then the
    formats, the most precise first. A variant that makes no new program is not mentioned.
    """
    rough = remembered(rough)
    best = first = make(base)
    tried: list[Alternative] = []
    seen = [first.cost]
    for variant in variants:
        settings = variant.change(best.settings)
        before, after = rough(best.settings), rough(settings)
        if after.seconds > before.seconds:
            tried.append(_rejected(variant, best.cost, before, after))
            continue
        form = make(settings)
        if any(_same(form.cost, known) for known in seen):
            continue
        seen.append(form.cost)
        kept = _better(form.cost, best.cost)
        tried.append(_alternative(variant, form.cost, _why(form.cost, best.cost, kept), kept))
        best = form if kept else best
    made = [best if f.change(best.settings) == best.settings else make(f.change(best.settings)) for f in formats]
    fastest = min(form.cost.seconds for form in made)
    chosen = next(form for form in made if form.cost.seconds <= NEARLY * fastest)
    rows = [
        _alternative(
            Variant("fewest bytes", "every form by itself sends least", lambda s: s),
            first.cost,
            "where the choice starts",
            first is chosen,
        )
    ]
    rows += tried
    if len(made) > 1:
        rows += [
            _alternative(f, form.cost, _why_format(form.cost, chosen.cost, fastest), form is chosen)
            for f, form in zip(formats, made, strict=True)
        ]
    return chosen, tuple(rows)


def _better(new: Cost, old: Cost) -> bool:
    enough = 1.0 if new.bytes_online <= old.bytes_online else WORTH
    return new.seconds < enough * old.seconds


def _why(new: Cost, old: Cost, kept: bool) -> str:
    little = not kept and new.seconds < old.seconds
    return _difference(new, old) + (f", too little (under {1 - WORTH:.0%}) for what it sends" if little else "")


def _same(one: Cost, other: Cost) -> bool:
    return one.bytes_by_party == other.bytes_by_party and one.rounds_by_party == other.rounds_by_party


def _alternative(variant: Variant, cost: Cost, why: str, chosen: bool) -> Alternative:
    return Alternative(variant.name, variant.reason, cost.bytes_online, cost.rounds, cost.seconds, chosen, why)


def _rejected(variant: Variant, best: Cost, before: Cost, after: Cost) -> Alternative:
    """A form that was not made: the best one so far, and the difference before truncations are chosen."""
    more = after.seconds - before.seconds
    return Alternative(
        variant.name,
        variant.reason,
        best.bytes_online + after.bytes_online - before.bytes_online,
        best.rounds + after.rounds - before.rounds,
        best.seconds + more,
        False,
        _difference(after, before),
    )


def _difference(new: Cost, old: Cost) -> str:
    """In words: rounds, bytes, and what that means on this network."""
    seconds = new.seconds - old.seconds
    verdict = f"{abs(seconds) * 1e3:,.3g} ms {'faster' if seconds < 0 else 'slower'} on {new.network.name}"
    return f"{new.rounds - old.rounds:+d} rounds, {(new.bytes_online - old.bytes_online) / 1e6:+.3f} MB: {verdict}"


def _why_format(cost: Cost, chosen: Cost, fastest: float) -> str:
    if cost is chosen:
        return "the fastest" if cost.seconds == fastest else "more precise than the fastest and nearly as fast"
    return _difference(cost, chosen)
