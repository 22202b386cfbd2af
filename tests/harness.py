"""What tests share: scheduling and running ring programs, graphs of one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import torch

from mpcc.backends.emulator import emulator
from mpcc.compiler.driver.schedule import merge, schedule
from mpcc.compiler.fixed import decode, encode
from mpcc.compiler.frontend.ranges import calibrate
from mpcc.compiler.graph.ir import Graph, Node
from mpcc.compiler.lowering import Settings
from mpcc.compiler.lowering.lower import lower
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.ops.base import from_torch
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.verify import verify
from mpcc.compiler.types import TensorType, attributes
from mpcc.passes.calls import GraphContext, Held
from mpcc.passes.manager import Watch, run_graph_passes

MODES = ("nearest", "probabilistic")


def scheduled(ring: RingGraph, variant: str = "safe", without: Set[str] = frozenset()) -> RingGraph:
    """The schedule stage of the pipeline, verified before and after."""
    settings = Settings(truncation="nearest" if variant == "nearest" else "probabilistic")
    watch = Watch(frozenset(without))
    result = schedule(merge(ring, watch), settings, watch=watch).ring
    verify(result, final=True)
    return result


def canonicalise(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Folded, simplified and fused as the compiler does it, and the tensors that are left."""
    held, _ = run_graph_passes(
        Held(graph, tensors), GraphContext(), Watch(), since="fold_constants", before="narrow_reads"
    )
    used = {str(n.attr("tensor")) for n in held.graph if n.op in ("param", "constant")}
    return held.graph, {name: tensor for name, tensor in held.tensors.items() if name in used}


def encoded(ring: RingGraph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Float values of the ring's inputs at the scales it wants."""
    types = {n.str_attr("name"): n.type for n in ring if n.op == "input"}
    return {name: encode(np.asarray(values[name], dtype=np.float64), type.frac_bits) for name, type in types.items()}


def encoded_params(ring: RingGraph, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The weights that a ring program reads, at the scales it wants."""
    result: dict[str, np.ndarray] = {}
    for node, _ in ring.walk():
        if node.op == "param":
            for name in node.strs_attr("tensors"):
                result[name] = encode(tensors[name].double().numpy(), node.type.frac_bits)
    return result


def run_ring(
    ring: RingGraph, values: Mapping[str, np.ndarray], tensors: Mapping[str, torch.Tensor], mode: str, **options: object
) -> dict[str, np.ndarray]:
    """Outputs of a scheduled ring program on the emulator, as reals."""
    params = encoded_params(ring, tensors)
    outputs = emulator.run(ring, encoded(ring, values), params, truncation=mode, **options).outputs
    scales = {name: ring[node].type.frac_bits for name, node in ring.outputs}
    return {name: decode(v, scales[name]) for name, v in outputs.items()}


def evaluate(
    function, x: np.ndarray, *, frac_bits: int, bound: float, mode: str, without: Set[str] = frozenset()
) -> np.ndarray:
    """`function(builder, x)` of one secret vector on the emulator."""
    b = Builder()
    given = b.input("x", x.shape, frac_bits, bound, "client")
    graph = b.graph([("y", b.reveal(function(b, given), "y"))])
    ring = scheduled(graph, "nearest" if mode == "nearest" else "safe", without)
    return run_ring(ring, {"x": x}, {}, mode)["y"]


def secret(name: str, op: str, inputs: Sequence[str], type: TensorType, **attrs: object) -> Node:
    return Node(name, op, tuple(inputs), attributes(**attrs), type, visibility="secret", site="mpc")


def client_input(name: str, value: torch.Tensor, **attrs: object) -> Node:
    """An input of the MPC region; one that holds whole numbers only is marked as such, as `cut` does."""
    type = TensorType(tuple(value.shape), from_torch(value.dtype))
    return Node(name, "input", (), attributes(role="client", **attrs), type, visibility="client", site="client")


def one_op(
    op: str,
    inputs: Sequence[torch.Tensor],
    attrs: Mapping[str, object],
    *,
    weights: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> tuple[Graph, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(graph, inputs, tensors) of y = op(...): operands listed in `weights` are the provider's params."""
    nodes: list[Node] = []
    given: dict[str, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    for i, value in enumerate(inputs):
        type = TensorType(tuple(value.shape), from_torch(value.dtype))
        if i in weights:
            nodes.append(Node(f"w{i}", "param", (), attributes(tensor=f"w{i}"), type, visibility="provider"))
            tensors[f"w{i}"] = value
        else:
            nodes.append(client_input(f"x{i}", value, whole=i in whole))
            given[f"x{i}"] = value
    result = REGISTRY[op].type([n.type for n in nodes], attrs)
    nodes.append(secret("y", op, [n.name for n in nodes], result, **attrs))
    return Graph(tuple(nodes), (("y", "y"),)), given, tensors


def run_lowered(
    graph: Graph,
    given: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    *,
    mode: str,
    settings: Settings | None = None,
    calibration: Sequence[Mapping[str, torch.Tensor]] = (),
) -> np.ndarray:
    """Calibrate (on the inputs themselves unless told otherwise), lower, schedule and run; the output y."""
    ranged = calibrate(graph, tensors, calibration or [given])
    ring = scheduled(lower(ranged, settings or Settings()).ring, "nearest" if mode == "nearest" else "safe")
    return run_ring(ring, {name: value.double().numpy() for name, value in given.items()}, tensors, mode)["y"]
