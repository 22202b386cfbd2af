"""Profile a scheduled program on calibration inputs: how large is what each truncation truncates?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.backends.emulator import profile
from mpcc.compiler.fixed import encode
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.states import State, states_of
from mpcc.passes.graph.declare_states import Kept

PROFILE_SAMPLES = 2  # a mean over thousands of elements hardly moves with more


class MagnitudeProfiler:
    """Runs scheduled programs of one model on a few calibration inputs.

    `client` computes the programs' inputs from the samples; `tensors` holds the weights of all visibilities. Forms of a
    program that are tried one after the other mostly read weights at the same scale: these are encoded once.
    """

    def __init__(
        self,
        client: Graph,
        tensors: Mapping[str, torch.Tensor],
        samples: Sequence[Mapping[str, torch.Tensor]],
        states: Mapping[str, Kept] | None = None,
    ) -> None:
        self.client, self.tensors, self.samples = client, tensors, samples[:PROFILE_SAMPLES]
        self.states = states or {}
        self._weights: dict[str, tuple[int, NDArray[np.int64]]] = {}  # scale and integers, of the last program

    def __call__(self, ring: RingGraph) -> dict[str, float]:
        """Largest mean |integer| per truncation, by node name, over the samples."""
        params = self.params(ring)
        result: dict[str, float] = {}
        for seed, values in enumerate(self.inputs):
            inputs = {
                n.str_attr("name"): encode(values[n.str_attr("name")].numpy(), n.type.frac_bits)
                for n in ring
                if n.op == "input"
            }
            states = {n: self._rows(n, s, self.samples[seed]) for n, s in states_of(ring).items()}
            for name, mean in profile(ring, inputs, params, seed=seed, states=states).items():
                result[name] = max(mean, result.get(name, 0.0))
        return result

    def _rows(self, name: str, state: State, sample: Mapping[str, torch.Tensor]) -> NDArray[np.int64]:
        """A state as the sample has it: its first rows, and zeros where nothing has been stored."""
        rows = np.zeros((state.rows, *state.row), np.int64)
        if name in sample:
            first = np.moveaxis(sample[name].numpy(), self.states[name].dim, 0)
            rows[: len(first)] = encode(first, state.frac_bits)
        return rows

    @cached_property
    def inputs(self) -> list[dict[str, torch.Tensor]]:
        """What the client's part of the model computes from every sample."""
        return [run_graph(self.client, dict(sample), self.tensors) for sample in self.samples]

    def params(self, ring: RingGraph) -> dict[str, NDArray[np.int64]]:
        """The weights of a program as ring elements, by tensor name."""
        return {
            name: self._weight(name, node.type.frac_bits)
            for node, _ in ring.walk()
            if node.op == "param"
            for name in node.strs_attr("tensors")
        }

    def _weight(self, name: str, frac_bits: int) -> NDArray[np.int64]:
        have, integers = self._weights.get(name, (None, None))
        if integers is None or have != frac_bits:
            integers = encode(self.tensors[name].numpy(), frac_bits)
            self._weights[name] = (frac_bits, integers)
        return integers
