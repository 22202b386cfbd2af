"""Profile a scheduled program on calibration inputs: how large is what each truncation truncates?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.backends.emulator import run
from mpcc.compiler.fixed import encode
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingGraph

PROFILE_SAMPLES = 2  # a mean over thousands of elements hardly moves with more


def truncation_magnitudes(
    ring: RingGraph, client: Graph, tensors: Mapping[str, torch.Tensor], samples: Sequence[Mapping[str, torch.Tensor]]
) -> dict[str, float]:
    """Largest mean |integer| per truncation (by node name) over a few calibration inputs.

    `client` computes the program's inputs from the samples; `tensors` holds the weights of all visibilities.
    """
    params = encode_params(ring, tensors)
    result: dict[str, float] = {}
    for seed, sample in enumerate(samples[:PROFILE_SAMPLES]):
        values = run_graph(client, dict(sample), tensors)
        inputs = {
            n.str_attr("name"): encode(values[n.str_attr("name")].numpy(), n.type.frac_bits)
            for n in ring
            if n.op == "input"
        }
        seen = run(ring, inputs, params, seed=seed, check=False, profile=True).magnitudes
        for name, mean in seen.items():
            result[name] = max(mean, result.get(name, 0.0))
    return result


def encode_params(ring: RingGraph, tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.int64]]:
    """The weights of a program as ring elements, by tensor name."""
    return {
        name: encode(tensors[name].numpy(), node.type.frac_bits)
        for node, _ in ring.walk()
        if node.op == "param"
        for name in node.strs_attr("tensors")
    }
