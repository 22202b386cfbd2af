"""How many bits a program tells about the private weights: everything in its shared files that they had a part in.

Shapes, names and the public weights are no part of this: they are public whatever the private weights are. What
calibration finds out depends on the weights, and leaves the provider only as what is counted here:

    magnitudes       a bound for the result of each operation in MPC, a power of two
    domains          what the form of a non-linear function knows of its argument, powers of two or of its root
    weights' bound   one power of two for all of them
    truncations      which of them are local, since their arguments are small
    forms            which forms of the program were considered, what they would cost, and which was taken
    failure          the probability that a local truncation fails, rounded up to a power of two
    ranks            with --recover-lora: the rank of each update and two errors, powers of two
    changed          which weights differ from the base

Each is counted in two ways. `at_most` is the logarithm of how many values there could have been: no program can tell
more, whatever the weights are. `coded` is how long the values of this program are in a code made for their own
frequencies (empirical entropy): closer to what is new to a reader. Where values are not listed one by one, it is left
out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mpcc.compiler.bundle.manifest import Manifest
from mpcc.compiler.findings import Alternative, LowRank
from mpcc.compiler.fixed import VALUE_BITS
from mpcc.compiler.protocols import PROTOCOLS
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.rules import PRIMITIVES
from mpcc.passes.ring.choose_truncations import local_elements

LOWEST_EXPONENT = -8  # of a calibrated bound: no smaller one leaves the compiler
# of the arguments of one operation; each is one of the 2^8 powers of 2^(1/2) that doubles hold near 1
MOST_STATISTICS = 6
STATISTIC_BITS = 8
FINE_BITS = 64  # of a number that is no power of two
PROBABILITY_BITS = 6  # 2^-1 to 2^-64
ERROR_BITS = 6
ANSWERS_TO_A_VARIANT = 4  # not made, made and left, made and taken, too little gained
_COMPUTES = frozenset({"linear", "product", "truncation", "non-linear"})


@dataclass(frozen=True)
class Told:
    """One kind of thing: how many there are, bits at most, bits as coded (None: not listed one by one), and how."""

    what: str
    count: int
    at_most: float
    coded: float | None
    how: str


def told(manifest: Manifest, ring: RingGraph) -> tuple[Told, ...]:
    """Everything that the shared files of a program tell about the private weights; kinds of which there is none are
    left out."""
    operations = _operations(ring)
    rows = (
        _magnitudes(operations),
        _domains(operations),
        _weights_bound(ring),
        _truncations(manifest, ring),
        _forms(manifest.alternatives),
        _savings(manifest),
        _failure(manifest),
        _ranks(manifest.low_rank),
        _changed(manifest),
    )
    return tuple(row for row in rows if row.count)


def entropy(values: Iterable[Hashable]) -> float:
    """Bits of all values together in a code made for their own frequencies."""
    counts = Counter(values)
    total = sum(counts.values())
    return sum(n * math.log2(total / n) for n in counts.values())


# ** what calibration found **
@dataclass(frozen=True)
class _Operation:
    """An operation of the graph in MPC that computes, or what the client shares: `result` is its last node."""

    result: RingNode
    approximated: bool  # a form made of several products and comparisons stands in for it


def _operations(ring: RingGraph) -> list[_Operation]:
    """Bodies of loops once; what only moves data has the bound of its origin."""
    last: dict[str, RingNode] = {}
    steps: dict[str, int] = {}
    for node in _nodes(ring):
        name, kind = node.origin.node, PRIMITIVES[node.op].kind
        if node.op == "input" or kind in _COMPUTES:
            steps[name] = steps.get(name, 0) + (kind in ("product", "non-linear"))
        if node.op not in ("const", "param", "reveal", "repeat", "arg"):
            last[name] = node
    return [_Operation(last[name], count > 1) for name, count in steps.items()]


def _magnitudes(operations: Sequence[_Operation]) -> Told:
    bits = 0.0
    for operation in operations:
        result = operation.result.type
        exponent = math.log2(result.bound) if result.bound > 0 else 0.0
        whole = abs(2 * exponent - round(2 * exponent)) < 1e-6
        # the bound of a form, such as 1.01 for tanh, follows from the form
        fine = not whole and not operation.approximated
        bits += FINE_BITS if fine else math.log2(max(VALUE_BITS - result.frac_bits - LOWEST_EXPONENT + 1, 1))
    how = f"a power of two each, 2^{LOWEST_EXPONENT} to what the ring holds"
    return Told("bounds of results", len(operations), bits, entropy(o.result.type.bound for o in operations), how)


def _domains(operations: Sequence[_Operation]) -> Told:
    count = sum(o.approximated for o in operations) * MOST_STATISTICS
    how = f"at most {MOST_STATISTICS} for each operation with an approximation, {STATISTIC_BITS} bits each"
    return Told("domains of approximations", count, float(count * STATISTIC_BITS), None, how)


def _weights_bound(ring: RingGraph) -> Told:
    bounds = {n.type.bound for n in _nodes(ring) if n.op == "param" and not n.type.public}
    bits = len(bounds) * math.log2(VALUE_BITS)
    return Told("bound of the weights", len(bounds), bits, None, "one power of two for all")


def _truncations(manifest: Manifest, ring: RingGraph) -> Told:
    """A truncation is local or not; one that was left out, since it was not local, stood after a product."""
    placed = [n for n in _nodes(ring) if n.op == "trunc" and n.attr("variant") != "nearest"]
    if not PROTOCOLS[manifest.protocol].local_truncation or not local_elements(ring):
        return Told("local truncations", 0, 0.0, 0.0, "")
    read = {name for n in placed for name in n.inputs}
    products = [n for n in _nodes(ring) if PRIMITIVES[n.op].kind == "product" and n.name not in read]
    count = len(placed) + len(products)
    how = f"local or not, for each of {len(placed)} truncations and of {len(products)} products without one"
    return Told("local truncations", count, float(count), entropy(n.attr("variant") for n in placed), how)


def _failure(manifest: Manifest) -> Told:
    there = int(manifest.failure_probability > 0)
    return Told("failure probability", there, float(PROBABILITY_BITS * there), None, "a power of two, 2^-64 to 1")


# ** what follows from it **
def _forms(alternatives: Sequence[Alternative]) -> Told:
    """Which were made and which was taken, and of each its bytes and rounds: seconds follow from these."""
    bits = sum(math.log2(ANSWERS_TO_A_VARIANT) + _number(a.bytes) + _number(a.rounds) for a in alternatives)
    return Told("other forms considered", len(alternatives), bits, None, "bytes and rounds of each, and whether it won")


def _savings(manifest: Manifest) -> Told:
    found = manifest.savings
    bits = sum(_number(s.bytes) + _number(s.rounds) + _number(s.source_bytes) for s in found)
    return Told("savings of passes", len(found), bits, None, "bytes, rounds and length of source of each")


def _number(value: int) -> float:
    """Bits of a number that could have been any one up to its own size, with its sign."""
    return math.log2(2 * abs(value) + 1)


# ** what is known of single weights **
def _ranks(found: Sequence[LowRank]) -> Told:
    bits = sum(_number(r.full_rank) + 2 * ERROR_BITS for r in found)
    return Told(
        "ranks of updates", len(found), bits, entropy(r.rank for r in found), "rank and two errors of each weight"
    )


def _changed(manifest: Manifest) -> Told:
    """Only of weights that were compared with a base."""
    compared = [e for e in manifest.evidence if e.reason.startswith(("byte-equal to", "differs from"))]
    bits = entropy(e.visibility for e in compared)
    return Told("weights that changed", len(compared), float(len(compared)), bits, "equal to the base's or not, each")


def _nodes(ring: RingGraph) -> Iterator[RingNode]:
    return (node for node, _ in ring.walk())
