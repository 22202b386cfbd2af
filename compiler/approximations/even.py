"""Activations f of which f(x) - x / 2 is even: chains of products, over a calibrated range or for any argument.

GELU and SiLU are such: f(x) = x s(x) with s(-x) = 1 - s(x). Within a range f(x) - x / 2 is a polynomial in x^2 and
needs no comparison. For any x, f(x) = relu(x) + d(|x|), where d(a) = f(a) - a vanishes for large a.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2

import numpy as np

from mpcc.compiler.approximations.chain import Floats, Step, evaluate_chain, values
from mpcc.compiler.approximations.sign import clip_above, sign_and_abs
from mpcc.compiler.errors import InternalError
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode

INNER_FRAC_BITS = 20


@dataclass(frozen=True)
class Chain:
    """`steps` on [0, edge] or [-edge, edge] in the variable t = x / 2^unit, whose result is in the same unit."""

    edge: float
    unit: int
    steps: tuple[Step, ...]

    @property
    def scaled_edge(self) -> float:
        return self.edge / 2.0**self.unit

    def values(self, x: Floats) -> Floats:
        """The result in float64."""
        return 2.0**self.unit * values(self.steps, x / 2.0**self.unit)[-1]

    def evaluate(self, b: Builder, x: RingNode, low: float, inner_frac_bits: int) -> RingNode:
        """The result for x from `low` edges to one edge, still in the unit and not yet truncated."""
        edge = self.scaled_edge
        t = b.reinterpret(x, self.unit)
        return evaluate_chain(b, t, self.steps, low=low * edge, high=edge, frac_bits=inner_frac_bits)


@dataclass(frozen=True)
class HalfEven:
    """One function: `even` are polynomials f(x) - x / 2, the narrowest first, and `tail` is f(a) - a."""

    exact: Callable[[Floats], Floats]
    even: Sequence[Chain]
    tail: Chain

    def within(self, bound: float) -> Chain | None:
        """The narrowest even polynomial that holds on [-bound, bound]."""
        return next((chain for chain in self.even if bound <= chain.edge), None)

    def error(self, domain: float | None, frac_bits: int, inner_frac_bits: int = INNER_FRAC_BITS) -> float:
        """Bound of the absolute error on [-domain, domain], or (None) anywhere: fit, inner rounding, last rounding."""
        chain = self.tail if domain is None else self._of(domain)
        return self.fit_errors[domain] + chain.edge * 2.0 ** (3 - inner_frac_bits) + 8 * 2.0**-frac_bits

    @cached_property
    def fit_errors(self) -> dict[float | None, float]:
        """Largest error before rounding: of the even polynomials by domain, and (None) of the form for any x."""
        grid = np.linspace(0.0, 1.0, 4001)
        tail = self.exact(self.tail.edge * grid) - self.tail.edge * grid
        found: dict[float | None, float] = {
            None: float(np.abs(self.tail.values(self.tail.edge * grid) - tail).max() + abs(tail[-1]))
        }
        for chain in self.even:
            x = chain.edge * grid
            found[chain.edge] = float(np.abs(chain.values(x) - (self.exact(x) - x / 2)).max())
        return found

    def evaluate_within(self, b: Builder, x: RingNode, inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
        """f at x's scale where x's bound is within a domain, without a comparison; error `error` of that domain.

        Beyond its domain the polynomial is nothing like f.
        """
        chain = self._of(x.type.bound)
        even = chain.evaluate(b, x, -1.0, inner_frac_bits)
        half = b.rescale(b.reinterpret(b.reinterpret(x, chain.unit), 1), even.type.frac_bits)
        whole = b.reinterpret(b.add(even, half), -chain.unit)
        return b.rescale(whole, x.type.frac_bits, bound=x.type.bound)

    def evaluate_anywhere(self, b: Builder, x: RingNode, inner_frac_bits: int = INNER_FRAC_BITS) -> RingNode:
        """f for any x within its bound, at x's scale and one bit more; error `error` of None.

        Two comparisons (one where the bound is within the tail's edge), two products without truncation, and the
        tail's. The bit more comes from halving and is cheaper kept than truncated.
        """
        _, magnitude = sign_and_abs(b, x)
        tail = self.tail.evaluate(b, clip_above(b, magnitude, self.tail.edge), 0.0, inner_frac_bits)
        tail = b.reinterpret(tail, -self.tail.unit)
        deepest = float(np.abs(self.tail.values(np.linspace(0.0, self.tail.edge, 1001))).max())
        lowest = 2.0 ** ceil(log2(deepest))
        relu = b.reinterpret(b.add(x, magnitude), 1)
        return b.add(relu, b.rescale(tail, x.type.frac_bits + 1, bound=lowest), bound=x.type.bound)

    def _of(self, bound: float) -> Chain:
        chain = self.within(bound)
        if chain is None:
            raise InternalError(f"no even polynomial for |x| <= {bound:g}")
        return chain
