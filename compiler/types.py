"""What is said of a value of the graph IR: its type, its attributes, and who may read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

Attr = Union[None, bool, int, float, str, tuple["Attr", ...]]

DTYPES = frozenset({"f32", "f64", "i64", "i32", "bool"})

# Who may read a value. The visibility of a result is the intersection of those of its operands (design, section 5).
VISIBILITIES: Mapping[str, frozenset[str]] = {
    "public": frozenset({"client", "provider", "helper"}),
    "client": frozenset({"client"}),
    "provider": frozenset({"provider"}),
    "secret": frozenset(),
}
# Where a value is computed: before the program exists (by anybody, or by the provider), by the client, or in MPC.
SITES = frozenset({"compile", "provider", "client", "mpc"})

LOGITS, LABEL = "logits", "label"  # names of outputs: one number for each class, and which of them is the largest
# what the text of an IR may hold: levels of bodies and values within one another, dimensions of a value, numbers in one
# list, and characters of one number
DEEPEST, MOST_DIMENSIONS, MOST_NUMBERS, LONGEST_NUMBER = 32, 32, 4096, 40
# control characters, halves of a pair that stand alone, and what turns the direction of writing round
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> bool:
    """Whether a text can be shown on a terminal: it has no character that does something there, or is none."""
    return _UNSHOWABLE.search(text) is None


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: str = "f32"

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def elements(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        return n


def attributes(**attrs: Attr) -> tuple[tuple[str, Attr], ...]:
    """Attributes in canonical (sorted) order, as nodes hold them."""
    return tuple(sorted(attrs.items()))
