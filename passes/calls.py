"""What each pass of the lists is given, and what becomes of what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import torch

from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.ring.ir import RingGraph
from mpcc.passes.graph.assign_roles import assign_roles
from mpcc.passes.graph.change_model import change_model
from mpcc.passes.graph.check_secure import check_secure
from mpcc.passes.graph.choose_outputs import choose_outputs
from mpcc.passes.graph.cut import cut
from mpcc.passes.graph.declare_states import Kept, declare_states
from mpcc.passes.graph.fold_affine import fold_affine
from mpcc.passes.graph.fold_constants import fold_constants
from mpcc.passes.graph.fuse_activations import fuse_activations
from mpcc.passes.graph.fuse_attention import fuse_attention
from mpcc.passes.graph.fuse_norms import fuse_norms
from mpcc.passes.graph.group_heads import group_heads
from mpcc.passes.graph.hoist_prepared import hoist_prepared
from mpcc.passes.graph.merge_adapters import merge_adapters
from mpcc.passes.graph.narrow_reads import narrow_reads
from mpcc.passes.graph.pick_rows import pick_rows
from mpcc.passes.graph.prepare_masks import prepare_masks
from mpcc.passes.graph.private_embedding import private_embedding
from mpcc.passes.graph.roll_layers import roll_layers
from mpcc.passes.graph.simplify import simplify
from mpcc.passes.ring.absorb_factors import absorb_factors
from mpcc.passes.ring.choose_truncations import Choice, apply_choice, choose_truncations
from mpcc.passes.ring.dead_code import ring_dead_code
from mpcc.passes.ring.defer_rescales import defer_rescales
from mpcc.passes.ring.merge_rescales import merge_rescales
from mpcc.passes.ring.place_truncations import place_truncations

Tensors = Mapping[str, torch.Tensor]
Magnitudes = Callable[[RingGraph], Mapping[str, float]]


@dataclass(frozen=True)
class GraphContext:
    """What graph passes may know beside the graph.

    `labels`: visibility of each tensor; `samples`: calibration inputs; `output` and `output_frac_bits`: what is opened
    (passes/graph/choose_outputs.py); `states`: what stays in the session, and `place` the input that says where in
    them; the last two are facts of the protocol (see compiler/protocols.py).
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Tensors] = ()
    public_inputs: tuple[str, ...] = ()
    output: str = "logits"
    output_frac_bits: int | None = None
    approximations: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, Kept] = field(default_factory=dict)
    place: str = ""
    public_products_local: bool = False
    operands_free: bool = True


@dataclass(frozen=True)
class Held:
    """What graph passes hand on: the graph, all tensors that it or an earlier one names, and, once the graph is cut to
    the region inside MPC, the client's part.
    """

    graph: Graph
    tensors: Tensors
    client: Graph | None = None

    def becomes(self, graph: Graph, new: Tensors | None = None) -> Held:
        return Held(graph, {**self.tensors, **new} if new else self.tensors, self.client)


def _fold_affine(held: Held, context: GraphContext) -> Held:
    graph, constants, _ = fold_affine(held.graph, context.operands_free)
    return held.becomes(graph, constants)


def _check_secure(held: Held, context: GraphContext) -> Held:
    check_secure(held.graph)
    return held


def _cut(held: Held, context: GraphContext) -> Held:
    regions = cut(held.graph)
    return replace(held, graph=regions.mpc, client=regions.client)


GRAPH_CALLS: Mapping[str, Callable[[Held, GraphContext], Held]] = {
    "assign_roles": lambda h, c: h.becomes(assign_roles(h.graph, c.public_inputs)),
    "declare_states": lambda h, c: h.becomes(declare_states(h.graph, c.states, c.place)),
    "choose_outputs": lambda h, c: h.becomes(choose_outputs(h.graph, c.output, c.output_frac_bits)),
    "fold_constants": lambda h, c: h.becomes(*fold_constants(h.graph, h.tensors)),
    "simplify": lambda h, c: h.becomes(simplify(h.graph, h.tensors)),
    "fuse_attention": lambda h, c: h.becomes(fuse_attention(h.graph, h.tensors)),
    "fuse_norms": lambda h, c: h.becomes(fuse_norms(h.graph, h.tensors)),
    "fuse_activations": lambda h, c: h.becomes(fuse_activations(h.graph, h.tensors)),
    "narrow_reads": lambda h, c: h.becomes(narrow_reads(h.graph)),
    "pick_rows": lambda h, c: h.becomes(pick_rows(h.graph, h.tensors)),
    "prepare_masks": lambda h, c: h.becomes(prepare_masks(h.graph, h.tensors)),
    "group_heads": lambda h, c: h.becomes(group_heads(h.graph)),
    "label": lambda h, c: h.becomes(infer(h.graph, c.labels)),
    "private_embedding": lambda h, c: h.becomes(private_embedding(h.graph)),
    "merge_adapters": lambda h, c: h.becomes(merge_adapters(h.graph, public_products_local=c.public_products_local)),
    "change_model": lambda h, c: h.becomes(change_model(h.graph, c.approximations)),
    "check_secure": _check_secure,
    "fold_affine": _fold_affine,
    "hoist_prepared": lambda h, c: h.becomes(*hoist_prepared(h.graph, h.tensors)),
    "ranges": lambda h, c: h.becomes(calibrate(h.graph, h.tensors, c.samples)),
    "cut": _cut,
    "roll_layers": lambda h, c: h.becomes(roll_layers(h.graph)),
}


@dataclass(frozen=True)
class RingContext:
    """What ring passes may know beside the program.

    `variant`: of truncations, "safe" | "nearest"; `may_defer`: the requests for a scale (by name) that may be left out,
    None for all. With a `choice` that one is made again; otherwise truncations become local as far as `budget` (the
    failure probability of one inference) allows, by the `magnitudes` found in a placed program.
    """

    variant: str = "safe"
    may_defer: Set[str] | None = None
    choice: Choice | None = None
    budget: float = 0.0
    magnitudes: Magnitudes = lambda ring: {}


@dataclass(frozen=True)
class RingHeld:
    """What ring passes hand on: the program, and which truncations were made local."""

    ring: RingGraph
    choice: Choice | None = None

    def becomes(self, ring: RingGraph) -> RingHeld:
        return RingHeld(ring, self.choice)


def _choose_truncations(held: RingHeld, context: RingContext) -> RingHeld:
    if context.choice is not None:
        return RingHeld(*apply_choice(held.ring, context.choice))
    if context.budget == 0.0:
        return held
    return RingHeld(*choose_truncations(held.ring, context.magnitudes(held.ring), context.budget))


RING_CALLS: Mapping[str, Callable[[RingHeld, RingContext], RingHeld]] = {
    "merge_rescales": lambda h, c: h.becomes(merge_rescales(h.ring)),
    "ring_dead_code": lambda h, c: h.becomes(ring_dead_code(h.ring)),
    "defer_rescales": lambda h, c: h if c.may_defer == frozenset() else h.becomes(defer_rescales(h.ring, c.may_defer)),
    "place_truncations": lambda h, c: h.becomes(place_truncations(h.ring, variant=c.variant)),
    "absorb_factors": lambda h, c: h.becomes(absorb_factors(h.ring)),
    "choose_truncations": _choose_truncations,
}
