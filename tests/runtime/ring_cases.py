"""Ring programs with inputs, and the three ways to run them: the emulator, the stand-in, a real MP-SPDZ."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import standin
from one_request import Job

from mpcc.backends.emulator import emulator
from mpcc.backends.mp_spdz.emitter import Source, emit
from mpcc.backends.mp_spdz.weights import tensor_order
from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingGraph
from mpcc.compiler.ring.verify import verify
from mpcc.passes.ring.place_truncations import place_truncations


@dataclass(frozen=True)
class Case:
    """A program that is ready to run, what it reads, and its emitted source."""

    graph: RingGraph
    inputs: dict
    params: dict
    source: Source

    def region(self, public):
        region = self.source.layout.public if public else self.source.layout.private
        parts = [self.params[tensor].ravel() for tensor, _, _ in tensor_order(region)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    @property
    def client_stream(self):
        return np.concatenate([np.zeros(0, np.int64), *(self.inputs[name].ravel() for name in self.source.inputs)])

    @property
    def job(self):
        sizes = {n.str_attr("name"): n.type.elements for n in self.graph if n.op == "reveal"}
        outputs = tuple((name, sizes[name]) for name in self.source.outputs)
        return Job(self.source.text, "ring", self.region(True), self.region(False), self.client_stream, outputs)


def make(build, *, truncation="nearest", seed=0):
    """The program whose outputs `build(builder)` returns, with random inputs that reach their bounds."""
    builder = Builder()
    outputs = build(builder)
    graph = builder.graph([(name, builder.reveal(value, name)) for name, value in outputs.items()])
    return prepare(graph, truncation=truncation, seed=seed)


def prepare(graph, *, truncation="nearest", seed=0):
    graph = place_truncations(graph, variant="nearest" if truncation == "nearest" else "safe")
    verify(graph, final=True)
    source = emit(graph, protocol="ring", title="a test", truncation=truncation)
    rng = np.random.default_rng(seed)
    inputs, params = {}, {}
    for node, _ in graph.walk():
        if node.op == "input":
            inputs[node.str_attr("name")] = integers(rng, node.type)
        if node.op == "param":
            params.update({tensor: integers(rng, node.type) for tensor in node.strs_attr("tensors")})
    return Case(graph, inputs, params, source)


def integers(rng, type):
    """Random values of a type: the extremes and the values around zero first, then uniform in size or in bit length."""
    limit = int(type.bound * 2.0**type.frac_bits)
    values = rng.integers(-limit, limit, type.elements, endpoint=True)
    values[::3] >>= rng.integers(0, max(1, limit.bit_length()), values[::3].size)
    edges = np.array([limit, -limit, 0, -1, 1, limit - 1, 1 - limit], dtype=np.int64)[: type.elements]
    values[: edges.size] = np.clip(edges, -limit, limit)
    return rng.permutation(values).reshape(type.shape)


def run_emulator(case, truncation="nearest"):
    result = emulator.run(case.graph, case.inputs, case.params, truncation=truncation)
    return {name: value.ravel() for name, value in result.outputs.items()}


def for_protocol(case, protocol, truncation="nearest"):
    """The same program as the protocol's dialect writes it."""
    source = emit(case.graph, protocol=protocol, title="a test", truncation=truncation)
    return replace(case, source=source)


def run_standin(case, truncation="nearest"):
    public, private = case.region(True), case.region(False)
    streams = {0: np.concatenate([public, case.client_stream]), 1: np.concatenate([public, private]), 2: public}
    values = standin.execute(case.source.text, inputs=streams, truncation=truncation).private[0]
    assert len(values) == len(case.job.outputs)
    return {name: value for (name, _), value in zip(case.job.outputs, values, strict=True)}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
