"""The compiler from front to back; read `compile_model` from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from mpcc.backends.mp_spdz.dialects import dialect_of
from mpcc.backends.mp_spdz.emitter import Source, emit
from mpcc.compiler.approximations import CHANGING, FAITHFUL
from mpcc.compiler.cost import Cost, Network, estimate, network_of
from mpcc.compiler.driver.candidates import PROFILES, VARIANTS, base_settings, formats_for, weight_bound
from mpcc.compiler.driver.choose import Alternative, choose
from mpcc.compiler.driver.profile import truncation_magnitudes
from mpcc.compiler.driver.supported import check_secure
from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.partition import Evidence, Partition, check_base, hide, labels_of
from mpcc.compiler.frontend.publishing import check_published
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.graph.ir import Graph, without_dead_nodes
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import Lowered, lower
from mpcc.compiler.lowering.used_forms import UsedForm
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.verify import verify
from mpcc.passes.graph.canonicalise import canonicalise
from mpcc.passes.graph.cut import Regions, cut
from mpcc.passes.graph.fold_affine import Affine, fold_affine
from mpcc.passes.graph.hoist_prepared import hoist_prepared, prepare
from mpcc.passes.graph.merge_adapters import merge_adapters
from mpcc.passes.graph.narrow_reads import narrow_reads
from mpcc.passes.graph.prepare_masks import prepare_masks
from mpcc.passes.graph.private_embedding import private_embedding
from mpcc.passes.graph.recover_lora import Recovered, recover_lora
from mpcc.passes.graph.roll_layers import roll_layers
from mpcc.passes.ring.absorb_factors import absorb_factors
from mpcc.passes.ring.choose_truncations import Choice, apply_choice, choose_truncations
from mpcc.passes.ring.dead_code import ring_dead_code
from mpcc.passes.ring.defer_rescales import defer_rescales
from mpcc.passes.ring.merge_rescales import merge_rescales
from mpcc.passes.ring.place_truncations import place_truncations

Stage = Callable[[str], None]
Profiler = Callable[[RingGraph], Mapping[str, float]]


# what can be switched off, to see what it saves; see `Options.without`
SWITCHABLE = (
    "narrow_reads",
    "fold_affine",
    "merge_rescales",
    "absorb_factors",
    "choose_truncations",
    "defer_rescales",
    "roll_layers",
)
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Options:
    """Everything that the user may choose; see `mpcc.compile`."""

    protocol: str = "ring"
    network: str | Path | Network = "lan"  # what the program is to be fast on: a preset, a TOML file, a Network
    output: str = "logits"
    profile: str = "safe"
    frac_bits: int | None = None  # None: what the profile says
    weight_frac_bits: int | None = None
    failure_bits: int | None = None  # truncations fail with probability at most 2^-failure_bits per inference
    truncation: str = "probabilistic"
    approximations: Mapping[str, str] | None = None
    public_inputs: tuple[str, ...] = ()
    recover_lora: int | float | None = None  # rank, or error; see passes/graph/recover_lora.py
    without: frozenset[str] = NOTHING  # passes of SWITCHABLE to leave out


@dataclass(frozen=True)
class Compiled:
    """The result of every stage that later steps need.

    `graph` is the labelled graph of the model, before it was rewritten; `tensors` holds weights of all visibilities
    (the provider's); `recovered` says how LayerNorm results that are not computed follow from values that are.
    """

    graph: Graph
    evidence: tuple[Evidence, ...]
    regions: Regions
    ring: RingGraph
    source: Source
    tensors: dict[str, torch.Tensor]
    settings: Settings
    options: Options
    recovered: Mapping[str, Affine]
    truncations: Choice | None = None
    low_rank: tuple[Recovered, ...] = ()
    used: tuple[UsedForm, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Form:
    """One form of the program inside MPC, scheduled, and what an inference costs in it."""

    settings: Settings
    used: tuple[UsedForm, ...]
    ring: RingGraph
    truncations: Choice | None
    cost: Cost


@dataclass(frozen=True)
class Rewritten:
    """Before ranges are known: the labelled graph, the graph whose weights are prepared, and all tensors by name."""

    graph: Graph
    working: Graph
    tensors: dict[str, torch.Tensor]
    recovered: Mapping[str, Affine]


def compile_model(
    model: Captured,
    partition: Partition,
    calibration: Sequence[Mapping[str, torch.Tensor]],
    options: Options,
    stage: Stage = lambda name: None,
    form: Settings | None = None,
) -> Compiled:
    """Run all stages on a captured model.

    `calibration` are inputs for ranges; `stage` is called with the name of each stage as it begins; with `form` that
    one is made, and nothing is chosen.

    Raises:
        MpccError: see the stages; nothing is written here.
    """
    check_options(options)
    dialect = dialect_of(options.protocol)
    stage("label")
    check_base(model, partition)
    low_rank: tuple[Recovered, ...] = ()
    if options.recover_lora is not None:
        model, low_rank = recover_lora(model, partition, options.recover_lora)
    evidence = partition.label(model)
    check_published(model, partition, evidence)

    front = rewritten(model, evidence, options, stage)
    graph, tensors = front.graph, front.tensors

    stage("ranges")
    working = calibrate(front.working, tensors, calibration)

    stage("cut")
    regions = cut(working)

    stage("lower")
    region = regions.mpc if "roll_layers" in options.without else roll_layers(regions.mpc)
    base = base_settings(options, regions, tensors) if form is None else form
    base = replace(base, weight_bound=weight_bound(regions, tensors))
    profile = partial(truncation_magnitudes, client=regions.client, tensors=tensors, samples=calibration)

    stage("schedule")
    make = maker(region, options, budget_of(options) if dialect.local_trunc else 0.0, profile)
    chosen, alternatives = (
        (make(base), ())
        if form is not None
        else choose(base, formats_for(options, base), VARIANTS, make, partial(rough_cost, region, options))
    )
    verify(chosen.ring, final=True)

    stage("emit")
    source = emit(
        chosen.ring,
        protocol=options.protocol,
        title="mpcc program",
        truncation=options.truncation,
        compile_hint=f"compile.py {' '.join(dialect.compile_options)}",
        parties=dialect.parties,
    )
    return Compiled(
        graph,
        tuple(evidence),
        regions,
        chosen.ring,
        source,
        tensors,
        chosen.settings,
        options,
        front.recovered,
        chosen.truncations,
        low_rank,
        chosen.used,
        alternatives,
    )


def maker(region: Graph, options: Options, budget: float, profile: Profiler) -> Callable[[Settings], Form]:
    """What lowers, schedules and prices the region in given settings; equal programs are scheduled once."""
    made: list[tuple[Lowered, bool, bool, Form]] = []  # lowered, lean, local truncations deferred

    def make(settings: Settings) -> Form:
        lowered = lower(region, settings)
        for known, lean, deferred, form in made:
            if (known.ring, lean, deferred) == (lowered.ring, settings.lean, settings.defer_local):
                return replace(form, settings=settings)
        ring, truncations = schedule(lowered.ring, settings, budget, profile, options.without)
        cost = estimate(ring, options.protocol, network=options.network)
        form = Form(settings, lowered.used, ring, truncations, cost)
        made.append((lowered, settings.lean, settings.defer_local, form))
        return form

    return make


def rough_cost(region: Graph, options: Options, settings: Settings) -> Cost:
    """What a form would cost with every truncation in place and none of them local: nothing has to be run for it."""
    variant = "nearest" if settings.truncation == "nearest" else "safe"
    merged = _merged(lower(region, settings).ring, options.without)
    merged = defer_rescales(merged) if settings.defer_local and "defer_rescales" not in options.without else merged
    placed = _placed(merged, variant=variant, without=options.without)
    return estimate(placed, options.protocol, network=options.network)


def rewritten(
    model: Captured, evidence: Sequence[Evidence], options: Options, stage: Stage = lambda name: None
) -> Rewritten:
    """The stages that look at no range: everything up to the weights as their owners supply them.

    MpccError: see the stages.
    """
    dialect = dialect_of(options.protocol)
    stage("fold")
    graph = hide(assign_roles(model.graph, options), labels_of(evidence))
    graph = choose_outputs(graph, options.output)
    graph, tensors = canonicalise(graph, model.tensors)
    graph = prepare_masks(graph if "narrow_reads" in options.without else narrow_reads(graph))

    stage("infer")
    labels = labels_of(evidence)
    graph = infer(private_embedding(infer(graph, labels)), labels)
    graph = infer(merge_adapters(graph, public_products_local=dialect.public_products_local), labels)
    check_secure(graph)

    stage("rewrite")
    folded, constants, recovered = (
        (graph, {}, {}) if "fold_affine" in options.without else fold_affine(graph, dialect.operands_free)
    )
    folded = infer(folded, labels)
    tensors |= constants
    working, prepared = hoist_prepared(folded)
    tensors |= prepare(folded, prepared, tensors)
    return Rewritten(graph, working, tensors, recovered)


def budget_of(options: Options) -> float:
    """The probability with which a truncation of one inference may fail."""
    bits = PROFILES[options.profile].failure_bits if options.failure_bits is None else options.failure_bits
    return 2.0**-bits


def schedule(
    ring: RingGraph,
    settings: Settings,
    budget: float = 0.0,
    profile: Profiler = lambda ring: {},
    without: Set[str] = NOTHING,
) -> tuple[RingGraph, Choice | None]:
    """Merge and defer requests for a scale and place truncations, `without` some of the passes.

    Of `lean` settings as many are local as `budget` allows, by the magnitudes that `profile` finds in a placed program;
    only what stays safe is deferred, unless the settings say otherwise.
    """
    variant = "nearest" if settings.truncation == "nearest" else "safe"
    merged, place = _merged(ring, without), partial(_placed, variant=variant, without=without)

    def defer(only: Set[str] | None = None) -> RingGraph:
        return merged if "defer_rescales" in without else defer_rescales(merged, only)

    if not settings.lean or budget == 0.0 or "choose_truncations" in without:
        return place(defer()), None
    if settings.defer_local:
        placed = place(defer())
        return choose_truncations(placed, profile(placed), budget)
    placed = place(merged)
    chosen, choice = choose_truncations(placed, profile(placed), budget)
    safe = {n.name for n, _ in chosen.walk() if n.op == "trunc" and n.attr("variant") == "safe"}
    return apply_choice(place(defer(safe)), choice)


def _merged(ring: RingGraph, without: Set[str]) -> RingGraph:
    verify(ring)
    return ring if "merge_rescales" in without else ring_dead_code(merge_rescales(merge_rescales(ring)))


def _placed(ring: RingGraph, *, variant: str, without: Set[str]) -> RingGraph:
    verify(ring)
    placed = place_truncations(ring, variant=variant)
    return ring_dead_code(placed if "absorb_factors" in without else absorb_factors(placed))


def check_options(options: Options) -> None:
    """Refuse unknown choices, with what is known."""
    dialect_of(options.protocol)
    known = {"profile": tuple(PROFILES), "truncation": ("probabilistic", "nearest"), "output": ("logits", "all")}
    for key, allowed in known.items():
        value = getattr(options, key)
        if value not in allowed:
            raise MpccError(f"unknown {key} {value!r}", todo=f"choose one of: {', '.join(allowed)}")
    network_of(options.network)
    if unknown := options.without - set(SWITCHABLE):
        raise MpccError(f"the pass {min(unknown)} cannot be left out", todo=f"choose from: {', '.join(SWITCHABLE)}")
    for op, form in (options.approximations or {}).items():
        allowed_forms = {FAITHFUL[op], *CHANGING[op]} if op in FAITHFUL else set()
        if form not in allowed_forms:
            choices = ", ".join(f"{o}={f}" for o in FAITHFUL for f in (FAITHFUL[o], *sorted(CHANGING[o])))
            raise MpccError(f"unknown approximation {op}={form}", todo=f"choose from: {choices}")


def assign_roles(graph: Graph, options: Options) -> Graph:
    """Mark the inputs that the user declared public; all others are the client's."""
    names = {n.name for n in graph.nodes if n.op == "input"}
    for name in options.public_inputs:
        if name not in names:
            raise MpccError(f"there is no input {name!r} to make public", todo=f"inputs: {', '.join(sorted(names))}")
    return graph.with_nodes(
        [
            n.with_attrs(role="public" if n.name in options.public_inputs else "client") if n.op == "input" else n
            for n in graph
        ]
    )


def choose_outputs(graph: Graph, output: str) -> Graph:
    """Keep the declared outputs only: the first one of the model, or all."""
    if output == "all":
        return graph
    chosen = [o for o in graph.outputs if o[0] == "logits"] or [graph.outputs[0]]
    return without_dead_nodes(Graph(graph.nodes, tuple(chosen)))
