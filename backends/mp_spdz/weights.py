"""Where every weight and input stands in the streams that the parties feed to the program.

Private weights form one array in which the weights of a loop's iterations are consecutive blocks of equal size, so that
the body finds them at base + iteration * block. Public weights form a second array of the same kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mpcc.compiler.ring.ir import RingGraph, RingNode


@dataclass(frozen=True)
class Slot:
    """One param node: the tensor of iteration i starts at base + i * block (block 0 outside loops)."""

    tensors: tuple[str, ...]
    elements: int
    frac_bits: int
    base: int
    block: int


@dataclass
class Region:
    """One array of weights: its slots by param node name, and its size in ring elements."""

    slots: dict[str, Slot] = field(default_factory=dict)
    elements: int = 0


@dataclass(frozen=True)
class WeightLayout:
    """The private and the public array."""

    private: Region
    public: Region

    def region(self, node: RingNode) -> Region:
        return self.public if node.type.public else self.private


def layout_weights(graph: RingGraph) -> WeightLayout:
    """Assign positions to all params, in program order."""
    layout = WeightLayout(Region(), Region())
    for node in graph:
        if node.op == "param":
            _place([node], 1, layout.region(node))
        elif node.body is not None:
            count = node.int_attr("count")
            params = [n for n in node.body if n.op == "param"]
            _place([p for p in params if not p.type.public], count, layout.private)
            _place([p for p in params if p.type.public], count, layout.public)
    return layout


def _place(params: list[RingNode], count: int, region: Region) -> None:
    """One block per iteration with the given params side by side."""
    block = sum(math.prod(p.type.shape) for p in params)
    offset = region.elements
    for param in params:
        elements = math.prod(param.type.shape)
        stride = block if count > 1 or len(param.strs_attr("tensors")) > 1 else 0
        region.slots[param.name] = Slot(param.strs_attr("tensors"), elements, param.type.frac_bits, offset, stride)
        offset += elements
    region.elements += block * count


def tensor_order(region: Region) -> list[tuple[str, int, int]]:
    """(tensor, frac_bits, position) of every weight of a region, by rising position."""
    placed = [
        (tensor, slot.frac_bits, slot.base + i * slot.block)
        for slot in region.slots.values()
        for i, tensor in enumerate(slot.tensors)
    ]
    return sorted(placed, key=lambda entry: entry[2])
