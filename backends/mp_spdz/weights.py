"""Where every weight and input stands in the streams that the parties feed to the program.

Private weights form one array in which the weights of a loop's iterations are consecutive blocks of equal size, so that
the body finds them at base + iteration * block. Public weights form a second array of the same kind. Programs of one
session read the same arrays: what several of them need stands there once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
    """One array of weights: the slots of one program by param node name, and the size of the array in ring elements."""

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
    return layout_together([graph])[0]


def layout_together(graphs: Sequence[RingGraph]) -> tuple[WeightLayout, ...]:
    """Assign positions to the params of programs that share their weights, in the order of the programs.

    What an earlier program placed is found again by a later one, a run of a loop's iterations in a longer one included.
    """
    layouts = []
    private, public = _Shelf(), _Shelf()
    for graph in graphs:
        layout = WeightLayout(Region(), Region())
        for node in graph:
            if node.op == "param":
                (public if node.type.public else private).place([node], 1, layout.region(node))
            elif node.body is not None:
                count = node.int_attr("count")
                params = [n for n in node.body if n.op == "param"]
                private.place([p for p in params if not p.type.public], count, layout.private)
                public.place([p for p in params if p.type.public], count, layout.public)
        private.remember(layout.private)
        public.remember(layout.public)
        layouts.append(layout)
    for layout in layouts:
        layout.private.elements, layout.public.elements = private.elements, public.elements
    return tuple(layouts)


class _Shelf:
    """One array while it is being filled."""

    def __init__(self) -> None:
        self.elements = 0
        self.earlier: dict[tuple[str, int, int], int] = {}  # tensor, fractional bits, elements -> position

    def place(self, params: list[RingNode], count: int, region: Region) -> None:
        """One block per iteration with the given params side by side, but for those that stand in equal steps."""
        new = []
        for param in params:
            slot = self._standing(param)
            if slot is None:
                new.append(param)
            else:
                region.slots[param.name] = slot
        block = sum(math.prod(p.type.shape) for p in new)
        offset = self.elements
        for param in new:
            tensors, elements = param.strs_attr("tensors"), math.prod(param.type.shape)
            stride = block if count > 1 or len(tensors) > 1 else 0
            region.slots[param.name] = Slot(tensors, elements, param.type.frac_bits, offset, stride)
            offset += elements
        self.elements += block * count

    def _standing(self, param: RingNode) -> Slot | None:
        """Where earlier programs have the tensors of all iterations in equal steps; None if they have not."""
        tensors, elements = param.strs_attr("tensors"), math.prod(param.type.shape)
        keys = [(tensor, param.type.frac_bits, elements) for tensor in tensors]
        if not self.earlier.keys() >= set(keys):
            return None
        at = [self.earlier[key] for key in keys]
        steps = {second - first for first, second in pairwise(at)} or {0}
        return Slot(tensors, elements, param.type.frac_bits, at[0], steps.pop()) if len(steps) == 1 else None

    def remember(self, region: Region) -> None:
        """Let later programs find what one has placed."""
        for slot in region.slots.values():
            for i, tensor in enumerate(slot.tensors):
                self.earlier.setdefault((tensor, slot.frac_bits, slot.elements), slot.base + i * slot.block)


def tensor_order(region: Region) -> list[tuple[str, int, int]]:
    """(tensor, frac_bits, position) of every weight of a region, by rising position."""
    placed = [
        (tensor, slot.frac_bits, slot.base + i * slot.block)
        for slot in region.slots.values()
        for i, tensor in enumerate(slot.tensors)
    ]
    return sorted(placed, key=lambda entry: entry[2])
