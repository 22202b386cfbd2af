"""How soon a client has been told as much as the private weights hold: by then it may be able to compute them.

Whoever asks often enough can solve for the weights of a small private part; a classifier on a public body takes about
as many questions as it has weights per class. Counted are bits: what an answer tells at most, what the weights hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpcc.compiler.bundle.contents import Bundle

ANSWERS_OF_A_DAY = 10_000  # about what one client can ask for in a day
WEIGHT_BITS = 32  # of a weight of the provider's tensors, in which their bytes are counted


@dataclass(frozen=True)
class Extraction:
    """Bits of the private weights, bits that one inference tells the client, and after how many both are equal."""

    weight_bits: int
    answer_bits: int

    @property
    def answers(self) -> int | None:
        """Inferences whose answers hold as many bits as the private weights; None where nothing is told of them."""
        return -(-self.weight_bits // self.answer_bits) if self.answer_bits and self.weight_bits else None

    @property
    def soon(self) -> bool:
        """Whether one client can ask so often in a day."""
        return self.answers is not None and self.answers < ANSWERS_OF_A_DAY


def extraction(bundle: Bundle) -> Extraction:
    """Of a program: an opened number tells its sign and the bits of its bound, a label log2 of the number of classes.

    A weight holds as many bits as the program is given of it. A product of an adapter is counted as the adapter: the
    least that has to be found.
    """
    manifest = bundle.manifest
    private = sum(e.bytes for e in manifest.evidence if e.visibility == "provider") * 8 // WEIGHT_BITS
    given = sum(p.elements for p in manifest.private_weights)
    opened = [n for n in bundle.ring if n.op == "reveal"]
    whole = {o.name for o in manifest.outputs if o.whole}
    bits = sum(n.type.elements * (n.type.int_bits + (n.attr("name") not in whole)) for n in opened)
    return Extraction(min(private, given) * (manifest.weight_frac_bits + 1), bits)


def warning(found: Extraction) -> str:
    """One line where the private part is smaller than the answers of a day; otherwise nothing."""
    if not found.soon:
        return ""
    return (
        f"the private part is small: {found.answers:,} inferences tell a client as many bits as its weights hold; "
        "limit them (mpcc party --max-requests), or tell less (--output label, --output-frac-bits)"
    )
