"""What runs inside MPC computes another function where the user says so: GELU and softmax give way to cheap ones.

Given, with gelu=quad and softmax=2relu              Result
    g = gelu(h) {approximate="none"}                     g = gelu_quad(h)
    y = attention(q, k, v) {mask="none", scale=0.25}     y = attention_2relu(q, k, v) {mask="none", scale=0.25}

For models that were trained with these functions. It comes before ranges are known, so that calibration, every engine
and `verify` see the function that is computed. Layers that a party computes in clear stay as they are: nothing is
cheaper there for being another function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mpcc.compiler.approximations import APPROXIMATIONS
from mpcc.compiler.errors import MpccError
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.ops import REGISTRY, Op
from mpcc.compiler.types import attributes

# (operation, what the user says) -> the operation that takes its place
_SUBSTITUTES = {(op.replaces, op.chosen_by): op for op in REGISTRY.values() if op.replaces}
# What the user may say of an operation: the form that keeps its function, then those that change it.
CHOICES: Mapping[str, tuple[str, ...]] = {
    op: (APPROXIMATIONS[op].name, *sorted({form for _, (of, form) in _SUBSTITUTES if of == op}))
    for op in dict.fromkeys(op for _, (op, _) in _SUBSTITUTES)
}


def check_choices(approximations: Mapping[str, str]) -> None:
    """Refuse unknown forms, with what is known.

    Raises:
        MpccError: an operation of which nothing can be chosen, or an unknown form of one.
    """
    for op, form in approximations.items():
        if form not in CHOICES.get(op, ()):
            known = ", ".join(f"{o}={f}" for o, forms in CHOICES.items() for f in forms)
            raise MpccError(f"unknown approximation {op}={form}", todo=f"choose from: {known}")


def change_model(graph: Graph, approximations: Mapping[str, str]) -> Graph:
    """Put the chosen functions into a labelled graph without repeats.

    Raises:
        MpccError: attention whose mask differs between queries has no other function.
    """
    return graph.with_nodes([_changed(node, approximations) for node in graph])


def _changed(node: Node, approximations: Mapping[str, str]) -> Node:
    of = "attention" if node.op == "attention_seen" else node.op
    substitutes = (_SUBSTITUTES.get((of, choice)) for choice in approximations.items())
    new: Op | None = next((op for op in substitutes if op is not None), None)
    if new is None or node.site != "mpc":
        return node
    if of == "attention" and (node.attr("mask") not in ("none", "key") or node.attr("cap") is not None):
        said = "=".join(new.chosen_by)
        raise MpccError(
            f"{said} works with masks that are the same for all queries, and without a cap of the scores, only",
            where=node.origin.layer,
        )
    return replace(node, op=new.name, attrs=attributes(**{k: v for k, v in node.attrs if k in new.attrs}))


def changes_in(graph: Graph) -> dict[str, str]:
    """What the user said for this graph, as far as it shows."""
    return dict(REGISTRY[n.op].chosen_by for n in graph if n.op in REGISTRY and REGISTRY[n.op].replaces)
