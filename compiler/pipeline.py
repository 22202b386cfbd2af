"""The compiler from front to back; read `compile_model` from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from mpcc.backends.mp_spdz.dialects import dialect_of
from mpcc.backends.mp_spdz.emitter import Source, emit
from mpcc.compiler.approximations import CHANGING, FAITHFUL
from mpcc.compiler.capture import Captured
from mpcc.compiler.cost import estimate
from mpcc.compiler.errors import MpccError
from mpcc.compiler.ir import Graph, without_dead_nodes
from mpcc.compiler.lower import lower
from mpcc.compiler.lowering import Settings
from mpcc.compiler.magnitudes import truncation_magnitudes
from mpcc.compiler.partition import Evidence, Partition, check_base, labels_of
from mpcc.compiler.ranges import calibrate
from mpcc.compiler.ring import RingGraph
from mpcc.compiler.supported import check_secure
from mpcc.compiler.used_forms import UsedForm
from mpcc.compiler.verify_ring import verify
from mpcc.compiler.visibility import infer
from mpcc.passes.absorb_factors import absorb_factors
from mpcc.passes.canonicalise import canonicalise
from mpcc.passes.choose_truncations import Choice, apply_choice, choose_truncations
from mpcc.passes.cut import Regions, cut
from mpcc.passes.defer_rescales import defer_rescales
from mpcc.passes.fold_affine import Affine, fold_affine
from mpcc.passes.hoist_prepared import hoist_prepared, prepare
from mpcc.passes.merge_adapters import merge_adapters
from mpcc.passes.merge_rescales import merge_rescales
from mpcc.passes.narrow_reads import narrow_reads
from mpcc.passes.place_truncations import place_truncations
from mpcc.passes.prepare_masks import prepare_masks
from mpcc.passes.private_embedding import private_embedding
from mpcc.passes.recover_lora import Recovered, recover_lora
from mpcc.passes.ring_dead_code import ring_dead_code
from mpcc.passes.roll_layers import roll_layers

Stage = Callable[[str], None]
Profiler = Callable[[RingGraph], Mapping[str, float]]


@dataclass(frozen=True)
class Profile:
    """Fixed-point formats; `lean` chooses local truncations where the failure budget of 2^-failure_bits allows."""

    frac_bits: int
    weight_frac_bits: int
    lean: bool = False
    wide: bool = False
    tight: bool = False
    failure_bits: int = 20
    inner_frac_bits: int = 20


PROFILES: Mapping[str, Profile] = {
    "safe": Profile(16, 16, wide=True),
    "default": Profile(13, 15, lean=True, inner_frac_bits=17),
    "fast": Profile(13, 15, lean=True, tight=True, failure_bits=16, inner_frac_bits=16),
}

NARROW_INNER_FRAC_BITS = 15
NEARLY = 1.02  # more precise formats are taken as long as they cost at most this much more


@dataclass(frozen=True)
class Options:
    """Everything that the user may choose; see `mpcc.compile`."""

    protocol: str = "ring"
    network: str = "lan"
    output: str = "logits"
    profile: str = "safe"
    frac_bits: int | None = None  # None: what the profile says
    weight_frac_bits: int | None = None
    failure_bits: int | None = None  # truncations fail with probability at most 2^-failure_bits per inference
    truncation: str = "probabilistic"
    approximations: Mapping[str, str] | None = None
    public_inputs: tuple[str, ...] = ()
    recover_lora: int | float | None = None  # rank, or error; see passes/recover_lora.py


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


def compile_model(model: Captured, partition: Partition, calibration: Sequence[Mapping[str, torch.Tensor]],
                  options: Options, stage: Stage = lambda name: None) -> Compiled:  # fmt: skip
    """Run all stages on a captured model.

    `calibration` are inputs for ranges; `stage` is called with the name of each stage as it begins.

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

    stage("fold")
    graph = assign_roles(model.graph, options)
    graph = choose_outputs(graph, options.output)
    graph, tensors = canonicalise(graph, model.tensors)
    graph = prepare_masks(narrow_reads(graph))

    stage("infer")
    labels = labels_of(evidence)
    graph = infer(private_embedding(infer(graph, labels)), labels)
    graph = infer(merge_adapters(graph, public_products_local=dialect.public_products_local), labels)
    check_secure(graph)

    stage("rewrite")
    folded, constants, recovered = fold_affine(graph)
    folded = infer(folded, labels)
    tensors |= constants
    working, prepared = hoist_prepared(folded)
    tensors |= prepare(folded, prepared, tensors)

    stage("ranges")
    working = calibrate(working, tensors, calibration)

    stage("cut")
    regions = cut(working)

    stage("lower")
    region = roll_layers(regions.mpc)
    candidates = [(settings, lower(region, settings)) for settings in settings_for(options, regions, tensors)]

    stage("schedule")
    budget = budget_of(options) if dialect.local_trunc else 0.0
    profile = partial(truncation_magnitudes, client=regions.client, tensors=tensors, samples=calibration)
    scheduled = [
        (settings, lowered.used, *schedule(lowered.ring, settings, budget, profile)) for settings, lowered in candidates
    ]
    costs = [bytes_of(ring, options) for _, _, ring, _ in scheduled]
    settings, used, ring, choice = next(
        s for s, cost in zip(scheduled, costs, strict=True) if cost <= NEARLY * min(costs)
    )
    verify(ring, final=True)

    stage("emit")
    source = emit(ring, protocol=options.protocol, title="mpcc program", truncation=options.truncation,
                  compile_hint=f"compile.py {' '.join(dialect.compile_options)}", parties=dialect.parties)  # fmt: skip
    return Compiled(graph, tuple(evidence), regions, ring, source, tensors, settings, options, recovered, choice,
                    low_rank, used)  # fmt: skip


def budget_of(options: Options) -> float:
    """The probability with which a truncation of one inference may fail."""
    bits = PROFILES[options.profile].failure_bits if options.failure_bits is None else options.failure_bits
    return 2.0**-bits


def schedule(ring: RingGraph, settings: Settings, budget: float = 0.0,
             profile: Profiler = lambda ring: {}) -> tuple[RingGraph, Choice | None]:  # fmt: skip
    """Merge and defer requests for a scale and place truncations.

    Of `lean` settings as many are local as `budget` allows, by the magnitudes that `profile` finds in a placed program;
    only what stays safe is deferred.
    """
    variant = "nearest" if settings.truncation == "nearest" else "safe"
    merged = _merged(ring)
    if not settings.lean or budget == 0.0:
        return _placed(defer_rescales(merged), variant), None
    placed = _placed(merged, variant)
    chosen, choice = choose_truncations(placed, profile(placed), budget)
    safe = {n.name for n, _ in chosen.walk() if n.op == "trunc" and n.attr("variant") == "safe"}
    return apply_choice(_placed(defer_rescales(merged, safe), variant), choice)


def _merged(ring: RingGraph) -> RingGraph:
    verify(ring)
    return ring_dead_code(merge_rescales(merge_rescales(ring)))


def _placed(ring: RingGraph, variant: str) -> RingGraph:
    verify(ring)
    return ring_dead_code(absorb_factors(place_truncations(ring, variant=variant)))


def bytes_of(ring: RingGraph, options: Options) -> int:
    """Bytes of one inference over all parties."""
    return estimate(ring, options.protocol, network=options.network).bytes_online


def check_options(options: Options) -> None:
    """Refuse unknown choices, with what is known."""
    dialect_of(options.protocol)
    known = {"profile": tuple(PROFILES), "truncation": ("probabilistic", "nearest"), "output": ("logits", "all")}
    for key, allowed in known.items():
        value = getattr(options, key)
        if value not in allowed:
            raise MpccError(f"unknown {key} {value!r}", todo=f"choose one of: {', '.join(allowed)}")
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


def settings_for(options: Options, regions: Regions, tensors: Mapping[str, torch.Tensor]) -> list[Settings]:
    """The formats among which the cheapest program is chosen, the most precise first.

    Where the failure budget allows few local truncations, as in large models, the lean forms only add truncations: then
    more bits, or few enough to leave out more truncations, cost less.
    """
    profile = PROFILES[options.profile]
    lean = profile.lean and options.truncation != "nearest"
    base = Settings(
        frac_bits=options.frac_bits or profile.frac_bits,
        weight_frac_bits=options.weight_frac_bits or profile.weight_frac_bits,
        lean=lean,
        wide=profile.wide,
        tight=profile.tight,
        inner_frac_bits=profile.inner_frac_bits,
        weight_bound=weight_bound(regions, tensors),
        truncation=options.truncation,
        approximations=dict(options.approximations or {}),
    )
    if not lean or options.frac_bits or options.weight_frac_bits:
        return [base]
    precise = PROFILES["safe"]
    wider = replace(base, lean=False, frac_bits=precise.frac_bits, weight_frac_bits=precise.weight_frac_bits,
                    inner_frac_bits=precise.inner_frac_bits)  # fmt: skip
    narrower = replace(base, weight_frac_bits=base.weight_frac_bits - 1, inner_frac_bits=NARROW_INNER_FRAC_BITS)
    return [wider, base, narrower]


def weight_bound(regions: Regions, tensors: Mapping[str, torch.Tensor]) -> float:
    """One power of two that bounds every weight inside MPC."""
    largest = 0.0
    for node in regions.mpc:
        if node.op in ("param", "constant"):
            tensor = tensors[str(node.attr("tensor"))]
            if tensor.is_floating_point() and tensor.numel():
                value = float(tensor.abs().max())
                if not math.isfinite(value):
                    raise MpccError(f"the weight {node.attr('tensor')} holds a value that is not finite")
                largest = max(largest, value)
    return 2.0 ** max(3, math.ceil(math.log2(largest)) if largest else 0)
