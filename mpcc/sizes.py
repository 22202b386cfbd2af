"""Sizes for people."""

from __future__ import annotations


def size(number: float | None) -> str:
    """Bytes for people: 1.2 kB, 3.4 MB."""
    if number is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f} B"
