"""A causal language model compiled to the programs of one session: of the prompt, and of a few tokens more.

Both read the same private weights, which are shared once. Keys and values of private layers stay in shares in the
session, those of the frozen layers in clear at the client: whether a layer's are secret follows from its weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from mpcc.backends.mp_spdz.emitter import emit
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import Compiled, Session, Stage, compile_model
from mpcc.compiler.errors import MpccError
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.decoding import (
    ENTRIES,
    IDS,
    KEPT,
    LOGITS,
    PLACE,
    POSITIONS,
    Step,
    StepShape,
    capture_step,
    entries_of,
    names_of,
)
from mpcc.compiler.frontend.partition import Partition, labels_of
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.graph.visibility import infer
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.types import attributes
from mpcc.passes.graph.assign_roles import assign_roles
from mpcc.passes.graph.cut import Regions
from mpcc.passes.graph.declare_states import Kept

SAME = 1e-3  # of the largest logit: what rounding may make of a shifted text
MARGIN = 2.0  # of what a state is made for over the largest magnitude in calibration
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class GenerationShape:
    """`prompt` tokens at most, `cache` entries for prompt and answer together, `tokens` a decoding step takes."""

    prompt: int
    cache: int
    tokens: int = 1

    def check(self) -> None:
        """Raises:
        MpccError: nothing could be generated.
        """
        if min(self.prompt, self.tokens) < 1 or self.cache < self.prompt + self.tokens:
            raise MpccError(
                f"a cache of {self.cache} entries does not hold a prompt of {self.prompt} tokens and {self.tokens} more"
            )

    @property
    def prefill(self) -> StepShape:
        return StepShape(self.prompt, 0, 1)

    @property
    def decode(self) -> StepShape:
        return StepShape(self.tokens, self.cache, self.tokens)


@dataclass(frozen=True)
class GenerationPrograms:
    """The compiled steps, `secret` names the keys and values that stay in shares."""

    shape: GenerationShape
    prefill: Compiled
    decode: Compiled
    captured: tuple[Captured, Captured]
    secret: tuple[str, ...]


def compile_generation(
    model: nn.Module,
    partition: Partition,
    texts: Sequence[torch.Tensor],
    shape: GenerationShape,
    options: Options,
    stage: Stage = lambda name: None,
) -> GenerationPrograms:
    """Compile both steps of a model of transformers.

    Args:
        texts: token ids [tokens] for ranges; each is continued by the model itself where it is short.

    Raises:
        MpccError: see `capture_step` and `compile_model`.
    """
    shape.check()
    stage("capture")
    steps = capture_step(model, shape.prefill), capture_step(model, shape.decode)
    runs = [_run(model, ids, shape) for ids in texts]
    if not runs:
        raise MpccError("a program that generates needs calibration texts: its ranges depend on them")
    secret = _secret(steps[0], partition)
    session = Session({name: _kept(name, runs, shape.cache) for name in secret}, PLACE)
    samples = [run.prefill for run in runs], [run.decode for run in runs]
    relative = _relative(model, texts[0].reshape(-1)[: shape.prompt], shape.cache)
    chosen = [replace(options, output="all", public_inputs=_public(step, partition, relative)) for step in steps]
    decode = compile_model(steps[1].captured, partition, samples[1], chosen[1], stage, session=session)
    prefill = compile_model(
        steps[0].captured, partition, samples[0], chosen[0], stage, form=decode.settings, session=session
    )
    decode = _apart(decode, prefill)
    return GenerationPrograms(shape, prefill, decode, (steps[0].captured, steps[1].captured), secret)


def _apart(compiled: Compiled, other: Compiled) -> Compiled:
    """With other names for the tensors that have a name of the other program's and are not the same."""
    names = {
        name: f"decode.{name}"
        for name, tensor in compiled.tensors.items()
        if name in other.tensors and not _same(tensor, other.tensors[name])
    }
    if not names:
        return compiled
    regions = Regions(_renamed(compiled.regions.client, names), _renamed(compiled.regions.mpc, names))
    ring = _renamed_ring(compiled.ring, names)
    options = compiled.options
    return replace(
        compiled,
        graph=_renamed(compiled.graph, names),
        regions=regions,
        ring=ring,
        source=emit(ring, protocol=options.protocol, truncation=options.truncation),
        tensors={names.get(name, name): tensor for name, tensor in compiled.tensors.items()},
    )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    def node(old: Node) -> Node:
        tensor = str(old.attr("tensor"))
        new = old.with_attrs(tensor=names[tensor]) if old.op in ("param", "constant") and tensor in names else old
        return replace(new, body=_renamed(new.body, names)) if new.body is not None else new

    return graph.with_nodes([node(n) for n in graph])


def _renamed_ring(ring: RingGraph, names: Mapping[str, str]) -> RingGraph:
    def node(old: RingNode) -> RingNode:
        if old.body is not None:
            return old.with_body(_renamed_ring(old.body, names))
        if old.op != "param":
            return old
        return replace(old, attrs=attributes(tensors=tuple(names.get(t, t) for t in old.strs_attr("tensors"))))

    return ring.with_nodes(node(n) for n in ring)


# ** who may read what **
def _labelled(step: Step, partition: Partition, public: Sequence[str]) -> Graph:
    labels = labels_of(partition.label(step.captured))
    return infer(assign_roles(step.captured.graph, public), labels)


def _secret(step: Step, partition: Partition) -> tuple[str, ...]:
    """The keys and values that nobody may read."""
    graph = _labelled(step, partition, (PLACE,))
    return tuple(name for name, node in graph.outputs if name != LOGITS and graph[node].site == "mpc")


def _relative(model: nn.Module, ids: torch.Tensor, shift: int) -> bool:
    """Whether only differences of positions count, as with rotary embeddings: a shifted text is the same text."""
    try:
        with torch.no_grad():
            here, there = (
                model(input_ids=ids[None], position_ids=torch.arange(len(ids))[None] + by, use_cache=False).logits
                for by in (0, shift)
            )
    except (TypeError, ValueError, IndexError, RuntimeError):  # no such argument, or no such position
        return False
    return bool((here - there).abs().max() <= SAME * here.abs().max())


def _public(step: Step, partition: Partition, relative: bool) -> tuple[str, ...]:
    """Inputs that everybody may learn: where a step keeps, and the positions if MPC reads what they alone decide.

    Positions count the entries of the cache then, so that they tell nothing of the prompt: that needs a model for which
    only differences count.
    """
    if not relative:
        return (PLACE,)
    names = {node.name for node in step.captured.graph if node.op == "input"}
    graph = _labelled(step, partition, tuple({PLACE, POSITIONS} & names))
    crossing = {
        source
        for node in graph
        if node.site == "mpc"
        for source in node.inputs
        if graph[source].site == "client" and graph[source].visibility == "public"
    }
    return tuple(sorted({PLACE} | ({POSITIONS} & names if crossing - {PLACE} else set())))


# ** ranges **
@dataclass(frozen=True)
class _Run:
    """Inputs of both steps on one text, and the largest magnitude of each key and value."""

    prefill: dict[str, torch.Tensor]
    decode: dict[str, torch.Tensor]
    largest: Mapping[str, float]


def _run(model: nn.Module, ids: torch.Tensor, shape: GenerationShape) -> _Run:
    """The model on one text, cut after the prompt: what each step is given of it."""
    prompt = ids.reshape(-1)[: shape.prompt]
    padding = shape.prompt - len(prompt)
    whole = _continued(model, prompt, shape.tokens)
    entries = entries_of(model, whole[None])
    kept = torch.zeros(1, shape.cache + shape.tokens, dtype=torch.int64)
    kept[:, padding : shape.prompt] = 1
    kept[:, shape.cache :] = 1
    past = {}
    for name, value in zip(names_of(len(entries) // 2), entries, strict=True):
        cache = torch.zeros(*value.shape[:ENTRIES], shape.cache, value.shape[-1])
        cache[:, :, padding : shape.prompt] = value[:, :, : len(prompt)]
        past[name] = cache
    padded = torch.zeros(1, shape.prompt, dtype=torch.int64)
    padded[:, padding:] = prompt
    place = torch.tensor([shape.cache - shape.tokens])  # the last there can be: nothing but its bound depends on it
    return _Run(
        {
            IDS: padded,
            KEPT: kept[:, : shape.prompt],
            POSITIONS: torch.arange(shape.prompt)[None],
            PLACE: torch.zeros_like(place),
        },
        {
            IDS: whole[None, len(prompt) :],
            KEPT: kept,
            POSITIONS: torch.arange(shape.prompt, shape.prompt + shape.tokens)[None],
            PLACE: place,
            **past,
        },
        {name: float(value.abs().max()) for name, value in zip(names_of(len(entries) // 2), entries, strict=True)},
    )


def _continued(model: nn.Module, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """The text and the tokens that the model would write next."""
    with torch.no_grad():
        for _ in range(tokens):
            logits = model(input_ids=ids[None], use_cache=False).logits
            ids = torch.cat([ids, logits[0, -1:].argmax(-1)])
    return ids


def _kept(name: str, runs: Sequence[_Run], entries: int) -> Kept:
    largest = max(run.largest[name] for run in runs)
    return Kept(ENTRIES, entries, 2.0 ** math.ceil(math.log2(MARGIN * largest)) if largest else 1.0)
