"""Which approximations a program applies, where they are valid and how far off they may be; told by the lowering."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mpcc.compiler.findings import Applied


def counted(applied: Iterable[Applied], times: int = 1) -> tuple[Applied, ...]:
    """Equal entries as one, and `times` as many of each."""
    counts: dict[Applied, int] = {}
    for form in applied:
        key = replace(form, count=1)
        counts[key] = counts.get(key, 0) + times * form.count
    return tuple(replace(form, count=count) for form, count in counts.items())
