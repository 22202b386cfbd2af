"""The compiler from front to back; read `compile_model` from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from mpcc.compiler.verify_ring import verify
from mpcc.compiler.visibility import infer
from mpcc.passes.absorb_factors import absorb_factors
from mpcc.passes.canonicalise import canonicalise
from mpcc.passes.choose_truncations import Choice, choose_truncations
from mpcc.passes.cut import Regions, cut
from mpcc.passes.fold_affine import Affine, fold_affine
from mpcc.passes.hoist_prepared import hoist_prepared, prepare
from mpcc.passes.merge_rescales import merge_rescales
from mpcc.passes.place_truncations import place_truncations
from mpcc.passes.prepare_masks import prepare_masks
from mpcc.passes.private_embedding import private_embedding
from mpcc.passes.ring_dead_code import ring_dead_code
from mpcc.passes.roll_layers import roll_layers

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """Fixed-point formats; `lean` chooses local truncations where the failure budget allows."""

    frac_bits: int
    weight_frac_bits: int
    lean: bool


PROFILES: Mapping[str, Profile] = {"safe": Profile(16, 16, False), "default": Profile(13, 14, True)}


@dataclass(frozen=True)
class Options:
    """Everything that the user may choose; see `mpcc.compile`."""

    protocol: str = "ring"
    network: str = "lan"
    output: str = "logits"
    profile: str = "safe"
    frac_bits: int | None = None  # None: what the profile says
    weight_frac_bits: int | None = None
    failure_bits: int = 20  # truncations fail with probability at most 2^-failure_bits per inference
    truncation: str = "probabilistic"
    approximations: Mapping[str, str] | None = None
    public_inputs: tuple[str, ...] = ()


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
    evidence = partition.label(model)

    stage("fold")
    graph = assign_roles(model.graph, options)
    graph = choose_outputs(graph, options.output)
    graph, tensors = canonicalise(graph, model.tensors)
    graph = prepare_masks(graph)

    stage("infer")
    labels = labels_of(evidence)
    graph = infer(private_embedding(infer(graph, labels)), labels)
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
    settings = settings_for(options, regions, tensors)
    region = roll_layers(regions.mpc)
    ring, choice = lower_and_schedule(region, settings), None

    stage("schedule")
    if settings.lean and dialect.local_trunc:
        magnitudes = truncation_magnitudes(ring, regions.client, tensors, calibration)
        ring, choice = choose_truncations(ring, magnitudes, 2.0**-options.failure_bits)
    if settings.lean:
        # where the budget allows few local truncations, the lean forms only add truncations: then safe is cheaper
        precise = settings_for(replace(options, profile="safe"), regions, tensors)
        other = lower_and_schedule(region, precise)
        if bytes_of(other, options) <= bytes_of(ring, options):
            ring, settings, choice = other, precise, None
    verify(ring, final=True)

    stage("emit")
    source = emit(ring, protocol=options.protocol, title="mpcc program", truncation=options.truncation,
                  compile_hint=f"compile.py {' '.join(dialect.compile_options)}", parties=dialect.parties)  # fmt: skip
    return Compiled(graph, tuple(evidence), regions, ring, source, tensors, settings, options, recovered, choice)


def lower_and_schedule(region: Graph, settings: Settings) -> RingGraph:
    """Ring IR of an MPC region with its truncations placed; none of them is local yet."""
    return schedule(lower(region, settings), "nearest" if settings.truncation == "nearest" else "safe")


def schedule(ring: RingGraph, variant: str) -> RingGraph:
    """Merge requests for a scale and place truncations of one variant ("safe" | "nearest")."""
    verify(ring)
    merged = ring_dead_code(merge_rescales(merge_rescales(ring)))
    return ring_dead_code(absorb_factors(place_truncations(merged, variant=variant)))


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


def settings_for(options: Options, regions: Regions, tensors: Mapping[str, torch.Tensor]) -> Settings:
    """Formats, and one power of two that bounds every weight inside MPC."""
    largest = 0.0
    for node in regions.mpc:
        if node.op in ("param", "constant"):
            tensor = tensors[str(node.attr("tensor"))]
            if tensor.is_floating_point() and tensor.numel():
                value = float(tensor.abs().max())
                if not math.isfinite(value):
                    raise MpccError(f"the weight {node.attr('tensor')} holds a value that is not finite")
                largest = max(largest, value)
    bound = 2.0 ** max(3, math.ceil(math.log2(largest)) if largest else 0)
    profile = PROFILES[options.profile]
    return Settings(
        frac_bits=options.frac_bits or profile.frac_bits,
        weight_frac_bits=options.weight_frac_bits or profile.weight_frac_bits,
        lean=profile.lean and options.truncation != "nearest",
        weight_bound=bound,
        truncation=options.truncation,
        approximations=dict(options.approximations or {}),
    )
