"""The compiler from front to back; read `compile_model` from top to bottom, and passes/__init__.py beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from mpcc.backends.mp_spdz.emitter import Source, emit
from mpcc.compiler.driver.candidates import VARIANTS, base_settings, formats_for, weight_bound
from mpcc.compiler.driver.check_options import check_options
from mpcc.compiler.driver.check_output import check_output
from mpcc.compiler.driver.choose import choose
from mpcc.compiler.driver.debugging import print_times
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.profile import MagnitudeProfiler
from mpcc.compiler.driver.schedule import Forms
from mpcc.compiler.driver.threads import one_torch_thread
from mpcc.compiler.findings import Alternative, Applied, Evidence
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.partition import Partition, check_base, hide, labels_of
from mpcc.compiler.frontend.publishing import check_published
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.verify import verify
from mpcc.compiler.lowering import Settings
from mpcc.compiler.protocols import protocol_of
from mpcc.compiler.ring.ir import RingGraph
from mpcc.passes.calls import GraphContext, Held
from mpcc.passes.graph.cut import Regions
from mpcc.passes.graph.declare_states import Kept
from mpcc.passes.graph.recover_lora import Recovered, recover_lora
from mpcc.passes.manager import Watch, run_graph_passes
from mpcc.passes.ring.choose_truncations import Choice

Inputs = Mapping[str, torch.Tensor]
Stage = Callable[[str], None]
RANGES = "ranges"  # the first pass that looks at calibration inputs


@dataclass(frozen=True)
class Compiled:
    """The result of every stage that later steps need.

    `graph` is the labelled graph of the model, before it was rewritten for cost; `tensors` holds weights of all
    visibilities (the provider's); `options` have nothing left open.
    """

    graph: Graph
    evidence: tuple[Evidence, ...]
    regions: Regions
    ring: RingGraph
    source: Source
    tensors: dict[str, torch.Tensor]
    settings: Settings
    options: Options
    truncations: Choice | None = None
    low_rank: tuple[Recovered, ...] = ()
    applied: tuple[Applied, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Session:
    """What stays in shares from one request to the next, and the input that says where in it a request keeps."""

    states: Mapping[str, Kept] = field(default_factory=dict)
    place: str = ""


ALONE = Session()


@dataclass(frozen=True)
class FrontEnd:
    """Before ranges are known: the labelled graph of the model, the graph whose weights are prepared, all tensors."""

    graph: Graph
    prepared: Graph
    tensors: dict[str, torch.Tensor]


@one_torch_thread()
def compile_model(
    model: Captured,
    partition: Partition,
    calibration: Sequence[Inputs],
    options: Options,
    stage: Stage = lambda name: None,
    form: Settings | None = None,
    session: Session = ALONE,
) -> Compiled:
    """Run all stages on a captured model.

    `calibration` are inputs for ranges; `stage` is called with the name of each pass and step as it begins; with `form`
    that one is made, and nothing is chosen; `session` is what stays in shares between requests.

    Raises:
        MpccError: see the stages; nothing is written here.
    """
    options = check_options(options)
    watch = Watch(options.without, options.print_after, stage=stage)
    check_base(model, partition)
    check_output(model, options)
    low_rank: tuple[Recovered, ...] = ()
    if options.recover_lora is not None:
        model, low_rank = recover_lora(model, partition, options.recover_lora)
        verify(model.graph, "captured", after="recover_lora")
    evidence = partition.label(model)
    check_published(model, partition, evidence)
    front = front_end(model, evidence, options, watch, session)
    region, regions = _back_end(front, evidence, calibration, options, watch)

    stage("schedule")
    find = MagnitudeProfiler(regions.client, front.tensors, calibration, session.states)
    forms = _forms(region, find, options, watch)
    base = base_settings(options, regions, front.tensors) if form is None else form
    base = replace(base, weight_bound=weight_bound(regions, front.tensors))
    chosen, alternatives = (
        (forms.make(base), ())
        if form is not None
        else choose(base, formats_for(options, base), VARIANTS, forms.make, forms.rough_cost)
    )
    forms.show(chosen, watch)

    source = _emitted(chosen.ring, options, watch)
    return Compiled(
        front.graph,
        tuple(evidence),
        regions,
        chosen.ring,
        source,
        front.tensors,
        chosen.settings,
        options,
        chosen.truncations,
        low_rank,
        chosen.applied,
        alternatives,
    )


def _emitted(ring: RingGraph, options: Options, watch: Watch) -> Source:
    """The source; the passes are done then, and their times are told if they are wanted."""
    watch.stage("emit")
    with watch.timed("emit"):
        source = emit(ring, protocol=options.protocol, truncation=options.truncation)
    if options.time_passes:
        print_times(watch.times)
    return source


def front_end(
    model: Captured,
    evidence: Sequence[Evidence],
    options: Options,
    watch: Watch | None = None,
    session: Session = ALONE,
) -> FrontEnd:
    """The passes that look at no range: everything up to the weights as their owners supply them.

    MpccError: see the passes.
    """
    watch = watch or Watch(options.without)
    context = replace(_context(evidence, (), options), states=session.states, place=session.place)
    captured = Held(hide(model.graph, context.labels), model.tensors)
    held, left = run_graph_passes(captured, context, watch, before=RANGES)
    graph = left["check_secure"].graph
    named = {str(n.attr("tensor")) for n in (*graph, *held.graph) if n.op in ("param", "constant")}
    return FrontEnd(graph, held.graph, {name: t for name, t in held.tensors.items() if name in named})


def _back_end(
    front: FrontEnd, evidence: Sequence[Evidence], calibration: Sequence[Inputs], options: Options, watch: Watch
) -> tuple[Graph, Regions]:
    """The passes from ranges on: (the region inside MPC with its loops, the regions without)."""
    context = _context(evidence, calibration, options)
    held, left = run_graph_passes(Held(front.prepared, front.tensors), context, watch, since=RANGES)
    client = left["cut"].client
    assert client is not None, "cut sets it"
    return held.graph, Regions(client, left["cut"].graph)


def _context(evidence: Sequence[Evidence], samples: Sequence[Inputs], options: Options) -> GraphContext:
    protocol = protocol_of(options.protocol)
    return GraphContext(
        labels_of(evidence),
        samples,
        options.public_inputs,
        options.output,
        options.output_frac_bits,
        dict(options.approximations or {}),
        public_products_local=protocol.public_products_local,
        operands_free=protocol.operands_free,
    )


def _forms(region: Graph, find: MagnitudeProfiler, options: Options, watch: Watch) -> Forms:
    def magnitudes(ring: RingGraph) -> Mapping[str, float]:
        with watch.timed("truncation magnitudes"):
            return find(ring)

    budget = options.failure_budget if protocol_of(options.protocol).local_truncation else 0.0
    return Forms(region, options, budget, magnitudes, watch)
