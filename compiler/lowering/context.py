"""What every lowering rule sees: the builder, the settings, ranges, and the registry of rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.used_forms import UsedForm
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

RANGE_MARGIN = 1.25  # calibrated magnitudes are widened by this and rounded up to a power of two
WIDE_MARGIN, TIGHT_MARGIN = 2.0, 1.1
TIGHT_VARIANCE_MARGIN, LEAN_VARIANCE_MARGIN = 1.25, 2.0
VARIANCE_MARGIN = 4.0  # calibrated variances are widened by this on both sides


@dataclass(frozen=True)
class Settings:
    """Fixed-point format and chosen approximations.

    `frac_bits` of activations and `weight_frac_bits` of weights; `weight_bound` is one magnitude for all weights (a
    power of two, so that it tells next to nothing about them); `approximations` maps a graph op to the chosen form.
    `lean`: keep what is truncated small, so that truncations can be local ones, at a little precision. `tight`: widen
    calibrated ranges by little only. `wide`: widen them more, and let GELU hold for any argument. `inner_frac_bits`: of
    what stands between the products of a polynomial. The last four trade rounds for bytes (driver/candidates.py):
    how 1/sqrt(x) and 1/x weigh comparisons against Newton steps (a key of newton.START_WEIGHTS), how many entries of a
    row a comparison round of its maximum takes at once, and whether truncations that are to be local may be deferred.
    """

    frac_bits: int = 16
    weight_frac_bits: int = 16
    weight_bound: float = 8.0
    ring_bits: int = 64
    truncation: str = "probabilistic"
    approximations: dict[str, str] = field(default_factory=dict)
    lean: bool = False
    tight: bool = False
    wide: bool = False
    inner_frac_bits: int = 20
    root_start: str = "balanced"
    reciprocal_start: str = "balanced"
    row_maximum_arity: int = 2
    defer_local: bool = False

    @property
    def range_margin(self) -> float:
        """By how much calibrated magnitudes are widened."""
        return WIDE_MARGIN if self.wide else TIGHT_MARGIN if self.tight else RANGE_MARGIN


def rounded_up(magnitude: float, margin: float = RANGE_MARGIN, steps: int = 1) -> float:
    """The next power of 2^(1/steps) above `magnitude` with margin: the only form in which ranges leave us."""
    return float(2.0 ** (math.ceil(steps * math.log2(max(magnitude * margin, 2.0**-8))) / steps))


Rule = Callable[["Context", Node, Sequence[RingNode]], RingNode]
RULES: dict[str, Rule] = {}


def lowers(*ops: str) -> Callable[[Rule], Rule]:
    """Register a lowering rule for graph operations."""

    def register(rule: Rule) -> Rule:
        for op in ops:
            if op in RULES:
                raise InternalError(f"two lowering rules for {op}")
            RULES[op] = rule
        return rule

    return register


@dataclass
class Context:
    """The builder for one (body) graph and helpers that lowering rules share."""

    b: Builder
    settings: Settings
    used: list[UsedForm] = field(default_factory=list)

    @property
    def f(self) -> int:
        return self.settings.frac_bits

    @property
    def variance_margin(self) -> float:
        if self.settings.tight:
            return TIGHT_VARIANCE_MARGIN
        return LEAN_VARIANCE_MARGIN if self.settings.lean else VARIANCE_MARGIN

    def rounded_up(self, magnitude: float, steps: int = 1) -> float:
        """`rounded_up` with the margin of the settings."""
        return rounded_up(magnitude, self.settings.range_margin, steps)

    def uses(
        self,
        operation: str,
        form: str,
        domain: str,
        error: float | None,
        *,
        relative: bool = False,
        changes_model: bool = False,
    ) -> None:
        """Note the form that stands in for a non-linear operation, for manifest and inspect."""
        self.used.append(UsedForm(operation, form, 1, domain, error, relative, changes_model))

    def bound(self, node: Node) -> float | None:
        """Magnitude of the node's result from calibration, or None where only interval arithmetic is known."""
        if node.range is None:
            return None
        return self.rounded_up(max(abs(node.range[0]), abs(node.range[1])))

    def statistic(self, node: Node, key: str) -> float:
        """A calibrated statistic of the node (see ranges.py)."""
        for name, value in node.stats:
            if name == key:
                return value
        raise RangeError(
            f"the domain of {node.op} is unknown: it depends on the data",
            where=node.origin.layer or node.name,
            todo="give calibration inputs (--calibration FILE, or --calibrate-random N for a first look)",
        )

    def at_scale(self, x: RingNode, frac_bits: int | None = None) -> RingNode:
        """x at the working scale."""
        return self.b.rescale(x, self.f if frac_bits is None else frac_bits)

    def align(self, x: RingNode, y: RingNode) -> tuple[RingNode, RingNode]:
        """Both at the larger of their scales (lifting is free)."""
        frac_bits = max(x.type.frac_bits, y.type.frac_bits)
        return self.b.rescale(x, frac_bits), self.b.rescale(y, frac_bits)

    def broadcast(self, x: RingNode, shape: tuple[int, ...]) -> RingNode:
        return self.b.expand(x, shape)


def int_attr(node: Node, key: str) -> int:
    """A whole-number attribute; InternalError where it is none."""
    value = node.attr(key)
    if not isinstance(value, int):
        raise InternalError(f"{node.name}: {key} is {value!r}")
    return value
