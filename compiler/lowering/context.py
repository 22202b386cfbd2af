"""What every lowering rule sees: the builder, the settings, ranges, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mpcc.compiler.errors import InternalError, RangeError
from mpcc.compiler.findings import Applied
from mpcc.compiler.graph.ir import Node
from mpcc.compiler.lowering.settings import Settings, rounded_up
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

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
    applied: list[Applied] = field(default_factory=list)

    @property
    def f(self) -> int:
        return self.settings.frac_bits

    def rounded_up(self, magnitude: float, steps: int = 1) -> float:
        """`rounded_up` with the margin of the settings."""
        return rounded_up(magnitude, self.settings.range_margin, steps)

    def applies(
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
        self.applied.append(Applied(operation, form, 1, domain, error, relative, changes_model))

    def bound(self, node: Node) -> float | None:
        """Magnitude of the node's result from calibration, or None where only interval arithmetic is known."""
        if node.range is None:
            return None
        return self.rounded_up(max(abs(node.range[0]), abs(node.range[1])))

    def statistic(self, node: Node, key: str) -> float:
        """A statistic that calibration measured of the node's inputs; the operation has to declare it.

        Raises:
            RangeError: there was no calibration.
        """
        if key not in REGISTRY[node.op].statistics:
            raise InternalError(f"the lowering of {node.op} reads {key}, which the operation does not declare")
        for name, value in node.stats:
            if name == key:
                return value
        raise unknown_range(node)

    def at_scale(self, x: RingNode, frac_bits: int | None = None) -> RingNode:
        """x at the working scale."""
        return self.b.rescale(x, self.f if frac_bits is None else frac_bits)

    def align(self, x: RingNode, y: RingNode) -> tuple[RingNode, RingNode]:
        """Both at the larger of their scales (lifting is free)."""
        frac_bits = max(x.type.frac_bits, y.type.frac_bits)
        return self.b.rescale(x, frac_bits), self.b.rescale(y, frac_bits)


def unknown_range(node: Node) -> RangeError:
    """What to say where a domain depends on data that nobody gave."""
    return RangeError(
        f"the domain of {node.op} is unknown: it depends on the data",
        where=node.origin.layer or node.name,
        todo="give calibration inputs (--calibration FILE, or --calibrate-random N for a first look)",
    )


def int_attr(node: Node, key: str) -> int:
    """A whole-number attribute; InternalError where it is none."""
    value = node.attr(key)
    if not isinstance(value, int):
        raise InternalError(f"{node.name}: {key} is {value!r}")
    return value


def number_attr(node: Node, key: str, default: float | None = None) -> float:
    """A numeric attribute; InternalError where it is none."""
    value = node.attr(key, default)
    if not isinstance(value, (int, float)):
        raise InternalError(f"{node.name}: {key} is {value!r}")
    return float(value)


def ints_attr(node: Node, key: str) -> tuple[int, ...]:
    """An attribute that is a tuple of whole numbers; InternalError where it is none."""
    value = node.attr(key)
    if not isinstance(value, tuple) or not all(isinstance(v, int) for v in value):
        raise InternalError(f"{node.name}: {key} is {value!r}")
    return tuple(v for v in value if isinstance(v, int))
