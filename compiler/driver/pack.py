"""What was compiled as a bundle: everything in it goes to the parts of those who may have it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from typing import Any

import torch
from numpy.typing import NDArray

from mpcc.compiler.bundle.agreement import placed_weights
from mpcc.compiler.bundle.contents import Bundle, ClientPart
from mpcc.compiler.bundle.manifest import InputSpec, Manifest, OutputSpec, Placed
from mpcc.compiler.bundle.signature import input_specs, labels_in
from mpcc.compiler.cost import network_of
from mpcc.compiler.driver.pipeline import Compiled
from mpcc.compiler.errors import MpccError
from mpcc.compiler.findings import LowRank, Saving
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.numbers_in_code import numbers_in_code
from mpcc.compiler.graph.ir import Graph, Node, without_dead_nodes
from mpcc.compiler.ops import WHOLE
from mpcc.passes.graph.recover_lora import Recovered


def pack(model: Captured, compiled: Compiled, savings: Iterable[Saving] = ()) -> Bundle:
    """Split what was compiled by who may have it; `savings` is what each pass earned.

    Raises:
        MpccError: an output depends on nothing but the provider's weights.
    """
    layout, tensors = compiled.source.layout, compiled.tensors
    private, public = placed_weights(layout.private), placed_weights(layout.public)
    client = _client_graph(compiled)
    manifest = _manifest(model, compiled, private, public, savings)
    return Bundle(
        manifest,
        compiled.source.text,
        shareable(compiled.graph, compiled.regions.mpc),
        compiled.ring,
        {p.tensor: array_of(tensors[p.tensor]) for p in public},
        ClientPart(shareable(client), {n: array_of(tensors[n]) for n in _tensors_of(client)}, model.tokenizer_json),
        {p.tensor: array_of(tensors[p.tensor]) for p in private},
        shareable(compiled.regions.mpc),
    )


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """A weight as a bundle holds it: 16-bit floats, of which numpy knows one kind only, are widened."""
    plain = tensor.detach().cpu()
    if plain.dtype in (torch.float16, torch.bfloat16):
        plain = plain.float()
    array: NDArray[Any] = plain.contiguous().numpy()
    return array


def _manifest(
    model: Captured,
    compiled: Compiled,
    private: tuple[Placed, ...],
    public: tuple[Placed, ...],
    savings: Iterable[Saving],
) -> Manifest:
    options, settings = compiled.options, compiled.settings
    return Manifest(
        mpcc=metadata.version("mpcc"),
        protocol=options.protocol,
        network=network_of(options.network),
        ring_bits=compiled.ring.ring_bits,
        frac_bits=settings.frac_bits,
        weight_frac_bits=settings.weight_frac_bits,
        truncation=options.truncation,
        output=options.output,
        architecture=model.architecture,
        inputs=_inputs(model, compiled),
        outputs=_outputs(compiled),
        client_order=compiled.source.inputs,
        private_weights=private,
        public_weights=public,
        evidence=compiled.evidence,
        approximations=compiled.applied,
        labels=labels_in(model.config),
        profile=options.profile,
        local_truncations=compiled.truncations.local_elements if compiled.truncations else 0,
        failure_probability=_power_of_two(compiled.truncations.failure_probability if compiled.truncations else 0.0),
        low_rank=tuple(_low_rank(r) for r in compiled.low_rank),
        alternatives=compiled.alternatives,
        savings=tuple(savings),
        numbers=numbers_in_code(model.graph, model.tensors),
        output_frac_bits=options.output_frac_bits,
    )


def _power_of_two(value: float) -> float:
    """The next power of two that is no smaller: all digits of a figure that depends on private weights are a
    fingerprint of them.
    """
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 0.0


def _low_rank(found: Recovered) -> LowRank:
    errors = map(_power_of_two, (found.error, found.error_of_weight))
    return LowRank(found.tensor, found.rank, found.full_rank, *errors)


def _inputs(model: Captured, compiled: Compiled) -> tuple[InputSpec, ...]:
    """What is given with every request: states are in the session already."""
    given = {n.name for n in compiled.graph if n.op == "input"}
    specs = input_specs(model.graph, model.config, compiled.options.public_inputs)
    return tuple(spec for spec in specs if spec.name in given)


def _outputs(compiled: Compiled) -> tuple[OutputSpec, ...]:
    revealed = {n.str_attr("name"): n.type for n in compiled.ring if n.op == "reveal"}
    return tuple(
        OutputSpec(
            name,
            compiled.graph[node].type.shape,
            revealed[name].frac_bits if name in revealed else 0,
            clear=name not in revealed,
            whole=compiled.graph[node].op in WHOLE,
        )
        for name, node in compiled.graph.outputs
        if compiled.graph[node].op != "keep"
    )


def _client_graph(compiled: Compiled) -> Graph:
    """Inputs -> tensors that the client shares, by node, and the outputs that it computes alone, by their name."""
    graph, client = compiled.graph, compiled.regions.client
    revealed = {name for name, _ in compiled.regions.mpc.outputs}
    clear = tuple((name, node) for name, node in graph.outputs if name not in revealed)
    for name, node in clear:
        if graph[node].visibility not in ("public", "client"):
            raise MpccError(
                f"the output {name} depends on no input, only on the provider's weights", todo="choose another"
            )
    if not clear:
        return client
    return _joined(client, without_dead_nodes(Graph(graph.nodes, clear)))


def _joined(client: Graph, alone: Graph) -> Graph:
    """Both graphs in one. Rewriting may have given a name of `alone` another meaning in `client`: nodes are shared only
    where they and all that they read are equal.
    """
    name_in: dict[str, str] = {}
    extra: list[Node] = []
    for node in alone:
        moved = replace(node, inputs=tuple(name_in[i] for i in node.inputs))
        if node.name in client and _meaning(client[node.name]) == _meaning(moved):
            name_in[node.name] = node.name
            continue
        name_in[node.name] = node.name if node.op == "input" else f"clear.{node.name}"
        extra.append(replace(moved, name=name_in[node.name]))
    outputs = tuple((name, name_in[node]) for name, node in alone.outputs)
    return Graph((*client.nodes, *extra), (*client.outputs, *outputs))


def _meaning(node: Node) -> tuple[object, ...]:
    return node.op, node.inputs, node.attrs


def _tensors_of(graph: Graph) -> list[str]:
    return list(dict.fromkeys(str(n.attr("tensor")) for n in graph if n.op in ("param", "constant")))


def shareable(graph: Graph, mpc: Graph | None = None) -> Graph:
    """Without ranges and statistics, which private weights had a part in; sites as the cut (`mpc`) left them."""
    inside = {n.name for n in mpc if not n.is_leaf} if mpc is not None else set()
    return graph.with_nodes(
        [replace(n, range=None, stats=(), site="mpc" if n.name in inside else n.site) for n in graph]
    )
