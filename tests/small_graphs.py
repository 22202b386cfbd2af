"""Graphs written by hand: the shape rules come from the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mpcc.compiler.graph.ir import Graph, Node, Origin
from mpcc.compiler.ops import REGISTRY
from mpcc.compiler.types import TensorType, attributes


class Maker:
    """Appends nodes; parameters get random tensors."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def input(self, name: str, shape: Sequence[int], dtype: str = "f32", role: str = "client") -> str:
        self.nodes.append(Node(name, "input", (), attributes(role=role), TensorType(tuple(shape), dtype)))
        return name

    def param(self, name: str, *shape: int) -> str:
        self.tensors[name] = torch.randn(shape, generator=self.generator) / shape[-1] ** 0.5
        self.nodes.append(Node(name.replace(".", "_"), "param", (), attributes(tensor=name), TensorType(shape)))
        return name.replace(".", "_")

    def op(self, name: str, op: str, *inputs: str, layer: str = "", **attrs: object) -> str:
        types = {n.name: n.type for n in self.nodes}
        result = REGISTRY[op].type([types[i] for i in inputs], attrs)
        self.nodes.append(Node(name, op, inputs, attributes(**attrs), result, Origin(layer)))
        return name

    def graph(self, **outputs: str) -> Graph:
        return Graph(tuple(self.nodes), tuple(outputs.items()))


def layer(m: Maker, i: int, x: str, *, width: int, inner: int, lora: bool = False, skip: bool = True) -> str:
    """x + W2 gelu(W1 x [+ B A x])."""
    at, name = f"model.layer.{i}", f"l{i}"
    up = m.op(f"{name}_up", "linear", x, m.param(f"{at}.up", inner, width), m.param(f"{at}.bias", inner), layer=at)
    if lora:
        down = m.op(f"{name}_a", "linear", x, m.param(f"{at}.lora_A", 2, width), layer=at)
        delta = m.op(f"{name}_b", "linear", down, m.param(f"{at}.lora_B", inner, 2), layer=at)
        up = m.op(f"{name}_sum", "add", up, delta, layer=at)
    y = m.op(f"{name}_gelu", "gelu", up, layer=at, approximate="none")
    y = m.op(f"{name}_down", "linear", y, m.param(f"{at}.down", width, inner), layer=at)
    return m.op(f"{name}_out", "add", x, y, layer=at) if skip else y


def stack(
    layers: int,
    *,
    width: int = 4,
    inners: Mapping[int, int] | None = None,
    lora: Sequence[int] = (),
    ragged: Sequence[int] = (),
) -> tuple[Graph, dict[str, torch.Tensor]]:
    """`layers` layers and a head; `inners` changes the width of some, `lora` and `ragged` their operations."""
    m = Maker()
    x = m.input("x", (3, width))
    for i in range(layers):
        inner = (inners or {}).get(i, 6)
        x = layer(m, i, x, width=width, inner=inner, lora=i in lora, skip=i not in ragged)
    y = m.op("head", "linear", x, m.param("head.weight", 2, width))
    return m.graph(logits=y), m.tensors
