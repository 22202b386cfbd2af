"""Which approximations a program uses, where they are valid and how far off they may be, for manifest and inspect."""

from __future__ import annotations

import math
from collections.abc import Callable

from mpcc.compiler.approximations.exp import FORMS, LEAN_TOLERANCE, ExpForm, exp_error, form_for
from mpcc.compiler.approximations.gelu import even_domain, gelu_error
from mpcc.compiler.approximations.sigmoid import sigmoid_error
from mpcc.compiler.ir import Graph, Node
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.context import VARIANCE_MARGIN, rounded_up
from mpcc.compiler.manifest import Approximation

NEWTON_ERROR = 2.0**-17  # what reciprocal and rsqrt are asked for
_ANY = "any value within its bound"


def approximations(graph: Graph, settings: Settings) -> tuple[Approximation, ...]:
    """One entry per form and domain, with how often it is used.

    `graph` is the MPC region with its layers rolled: the domains of a loop are those of all its layers together, so
    that no more is told of a layer's ranges than the program itself shows.
    """
    counts: dict[Approximation, int] = {}
    _count(graph, settings, 1, counts)
    return tuple(Approximation(**{**vars(entry), "count": count}) for entry, count in counts.items())


def _count(graph: Graph, settings: Settings, times: int, counts: dict[Approximation, int]) -> None:
    for node in graph:
        for entry in _of(node, settings):
            counts[entry] = counts.get(entry, 0) + times
        if node.body is not None:
            _count(node.body, settings, times * int(node.attr("count", 1)), counts)  # type: ignore[arg-type]


def _of(node: Node, settings: Settings) -> list[Approximation]:
    rule = _RULES.get(node.op)
    return rule(node, settings) if rule is not None else []


def _gelu(node: Node, settings: Settings) -> list[Approximation]:
    if settings.approximations.get("gelu") == "quad":
        return [Approximation("gelu", "quad", 1, _ANY, None, changes_model=True)]
    form = str(node.attr("approximate", "none"))
    stats = dict(node.stats)
    domain = None
    if not settings.wide and "argument_max" in stats:
        argument = max(-stats["argument_min"], stats["argument_max"])
        domain = even_domain(argument * settings.range_margin)
    error = gelu_error(form, settings.frac_bits, domain=domain, inner_frac_bits=settings.inner_frac_bits)
    if domain is None:
        return [Approximation("gelu", "polynomial", 1, _ANY, error)]
    return [Approximation("gelu", "even polynomial", 1, f"[{-domain:g}, {domain:g}]", error)]


def _sigmoidal(node: Node, settings: Settings) -> list[Approximation]:
    error = sigmoid_error(settings.frac_bits)
    if node.op == "silu":
        return [Approximation("silu", "x * sigmoid", 1, "error per unit of |x|", error, relative=True)]
    return [Approximation(node.op, "exp, reciprocal", 1, _ANY, 2 * error if node.op == "tanh" else error)]


def _softmax(node: Node, settings: Settings) -> list[Approximation]:
    form = settings.approximations.get("softmax", "exp")
    if form != "exp":
        return [Approximation(node.op, form, 1, _ANY, None, changes_model=True)]
    spread = dict(node.stats).get("spread")
    if spread is None or node.attr("mask", "none") in ("keep", "additive"):
        candidates: tuple[ExpForm, ...] = FORMS
    else:
        candidates = (form_for(-rounded_up(spread, settings.range_margin), LEAN_TOLERANCE),)
    error = max(exp_error(f, settings.frac_bits + f.squarings) for f in candidates)
    keys = node.type.shape[-1] if node.op == "softmax" else 0
    return [
        Approximation(f"{node.op}: exp", "limit", 1, f"[{candidates[-1].lowest:g}, 0]", error),
        Approximation(f"{node.op}: reciprocal", "Newton", 1,
                      f"[0.95, {keys * 1.05:g}]" if keys else "[0.95, 1.05 * keys]", NEWTON_ERROR, relative=True),
    ]  # fmt: skip


def _norm(node: Node, settings: Settings) -> list[Approximation]:
    stats = dict(node.stats)
    domain = "calibrated"
    if "variance_min" in stats and "variance_max" in stats:
        # powers of two, which is also all that the program itself shows
        eps = max(float(node.attr("eps", 0.0)), 0.0)  # type: ignore[arg-type]
        low = 2.0 ** math.floor(math.log2(stats["variance_min"] / VARIANCE_MARGIN + eps or 2.0**-60))
        high = 2.0 ** math.ceil(math.log2(stats["variance_max"] * VARIANCE_MARGIN + eps or 2.0**-60))
        domain = f"mean square in [{low:g}, {high:g}]"
    return [Approximation(f"{node.op}: rsqrt", "Newton", 1, domain, NEWTON_ERROR, relative=True)]


def _newton(node: Node, settings: Settings) -> list[Approximation]:
    return [Approximation(node.op, "Newton", 1, "calibrated", NEWTON_ERROR, relative=True)]


def _exp(node: Node, settings: Settings) -> list[Approximation]:
    error = exp_error(FORMS[-1], settings.frac_bits + FORMS[-1].squarings)
    return [Approximation("exp", "limit", 1, "calibrated; error per largest result", error, relative=True)]


_RULES: dict[str, Callable[[Node, Settings], list[Approximation]]] = {
    "gelu": _gelu,
    "tanh": _sigmoidal,
    "sigmoid": _sigmoidal,
    "silu": _sigmoidal,
    "softmax": _softmax,
    "attention": _softmax,
    "layer_norm": _norm,
    "rms_norm": _norm,
    "reciprocal": _newton,
    "rsqrt": _newton,
    "sqrt": _newton,
    "div": _newton,
    "exp": _exp,
}
