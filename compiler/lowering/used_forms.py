"""Which approximations a program uses, where they are valid and how far off they may be; told by the lowering rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mpcc.compiler.findings import UsedForm


def counted(used: Iterable[UsedForm], times: int = 1) -> tuple[UsedForm, ...]:
    """Equal entries as one, and `times` as many of each."""
    counts: dict[UsedForm, int] = {}
    for form in used:
        key = replace(form, count=1)
        counts[key] = counts.get(key, 0) + times * form.count
    return tuple(replace(form, count=count) for form, count in counts.items())
