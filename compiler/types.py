"""What is said of a value of the graph IR: its type, its attributes, and who may read it."""

from __future__ import annotations

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
