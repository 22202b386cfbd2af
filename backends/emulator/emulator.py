"""The meaning of the ring IR, computed in clear on wrap-around int64 arrays.

What this computes is what an emitted program computes, up to the last bit of probabilistic truncation. It protects
nothing: it is for precision, debugging and tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpcc.backends.emulator import checks, exact, semantics
from mpcc.backends.emulator.report import EmulatorResult, Overflow, RangeUse
from mpcc.compiler.errors import InputError, InternalError, RangeError
from mpcc.compiler.fixed import RING_BITS, decode
from mpcc.compiler.ring.ir import RingGraph, RingNode
from mpcc.compiler.ring.rules import PRIMITIVES
from mpcc.compiler.ring.states import states_of

Int64 = NDArray[np.int64]
Extent = tuple[int, int]
Truncation = Literal["probabilistic", "nearest"]
Values = dict[str, Int64]
# no arithmetic: nothing to check or report
MOVES = frozenset(p.name for p in PRIMITIVES.values() if p.kind in ("layout", "output", "state", "loop")) | {"arg"}


def run(
    graph: RingGraph,
    inputs: Mapping[str, Int64],
    params: Mapping[str, Int64],
    *,
    truncation: Truncation = "probabilistic",
    seed: int = 0,
    trace: bool = False,
    check: bool = True,
    states: Mapping[str, Int64] | None = None,
) -> EmulatorResult:
    """Run `graph` on integers: `inputs` by the `name` attribute of the input nodes, `params` by tensor name.

    A parameter is reshaped to the shape of its node; inside a repeat, iteration i reads the i-th tensor. `truncation`
    "nearest" makes every truncation round to nearest; "probabilistic" draws from a generator seeded with `seed`.
    With `check`, the first overflow is a RangeError that names the layer; without, overflows are only recorded.
    `states` are those that the request before left, by name, [rows, ...]; what was never stored is zero.
    InputError if an input is missing or has the wrong shape, or a position lies outside a state; InternalError for a
    graph that is not ready to run.
    """
    if truncation not in ("probabilistic", "nearest"):
        raise InternalError(f"unknown truncation {truncation!r}")
    machine = _Observed(inputs, params, truncation == "nearest", np.random.default_rng(seed), trace, check)
    machine.states = _states(graph, states or {})
    values = machine.run(graph)
    outputs = {
        name: np.ascontiguousarray(values[source]).reshape(graph[source].type.shape)
        for name, source in graph.outputs
        if graph[source].op == "reveal"
    }
    return EmulatorResult(outputs, machine.trace, machine.ranges, machine.overflows, machine.states | machine.stored)


def profile(
    graph: RingGraph,
    inputs: Mapping[str, Int64],
    params: Mapping[str, Int64],
    *,
    seed: int = 0,
    states: Mapping[str, Int64] | None = None,
) -> dict[str, float]:
    """Run `graph` as `run` does, with probabilistic truncation and no checks.

    Returns for every truncation, by node name, the largest mean |integer| that it truncated in any iteration.
    InputError and InternalError as in `run`.
    """
    machine = _Profiled(inputs, params, False, np.random.default_rng(seed))
    machine.states = _states(graph, states or {})
    machine.run(graph)
    return machine.magnitudes


def _last_use(graph: RingGraph) -> dict[str, int]:
    """Position of the last node that reads each value; outputs are never dropped."""
    last = {name: position for position, node in enumerate(graph.nodes) for name in node.inputs}
    for _, source in graph.outputs:
        last[source] = len(graph.nodes)
    return last


class _Machine:
    """One run: the data and the generator."""

    def __init__(
        self, inputs: Mapping[str, Int64], params: Mapping[str, Int64], nearest: bool, rng: np.random.Generator
    ) -> None:
        self.inputs, self.params = inputs, params
        self.nearest, self.rng = nearest, rng
        self.states: dict[str, Int64] = {}  # as the request before left them
        self.stored: dict[str, Int64] = {}

    def run(self, graph: RingGraph) -> Values:
        """The values of a whole program."""
        if graph.ring_bits != RING_BITS:
            raise InternalError(f"the emulator has a {RING_BITS}-bit ring, the program {graph.ring_bits}")
        with np.errstate(over="ignore"):
            return self.graph(graph, 0, [], 0)

    def observe(self, node: RingNode, values: Values, extents: dict[str, Extent], iteration: int) -> None:
        """Called after every node; `extents` is for this alone."""

    def graph(self, graph: RingGraph, iteration: int, args: list[Int64], carried: int) -> Values:
        """Run the nodes of `graph`; `args` are the loop arguments, the first `carried` of them carried."""
        values: Values = {}
        extents: dict[str, Extent] = {}
        results: dict[str, list[Int64]] = {}
        last = _last_use(graph)
        for position, node in enumerate(graph.nodes):
            if node.op == "repeat":
                results[node.name] = self.repeat(node, [values[name] for name in node.inputs])
                values[node.name] = np.zeros((), dtype=np.int64)
            elif node.op == "take":
                values[node.name] = results[node.inputs[0]][node.int_attr("index")]
            elif node.op == "arg":
                offset = 0 if node.str_attr("kind") == "carried" else carried
                values[node.name] = args[offset + node.int_attr("index")]
            else:
                values[node.name] = self.node(node, [values[name] for name in node.inputs], iteration)
            self.observe(node, values, extents, iteration)
            for name in node.inputs:
                if last[name] == position:
                    values.pop(name, None)
                    extents.pop(name, None)
        return values

    def repeat(self, node: RingNode, args: list[Int64]) -> list[Int64]:
        """Run the body `count` times and return the carried values of the last iteration."""
        body, carried = node.body, node.int_attr("carried")
        if body is None:
            raise InternalError(f"{node.name}: repeat without a body")
        state, invariants = args[:carried], args[carried:]
        for iteration in range(node.int_attr("count")):
            values = self.graph(body, iteration, state + invariants, carried)
            state = [values[source] for _, source in body.outputs]
        return state

    def node(self, node: RingNode, args: list[Int64], iteration: int) -> Int64:
        """The result of one primitive; loops and their arguments are handled by `graph`."""
        op = node.op
        if op in ("input", "param", "const", "load_state"):
            return self.leaf(node, iteration)
        if op in ("add", "sub", "mul"):
            function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[op]
            return np.asarray(function(args[0], args[1]))
        if op == "mul_const":
            value = node.int_attr("value")
            return args[0] if value == 1 else np.asarray(args[0] * semantics.wrap(value))
        if op == "sum":
            return np.asarray(args[0].sum(axis=node.int_attr("dim"), keepdims=True))
        if op == "layout":
            return semantics.layout(node, args)
        if op == "dot":
            return semantics.dot(args[0], args[1])
        if op == "matmul":
            return exact.matmul(args[0], args[1])
        if op == "block_matmul":
            return exact.matmul(semantics.without_blocks(args[0], node.int_attr("block")), args[1])
        if op == "trunc":
            return self.trunc(node, args[0])
        if op == "lt":
            return semantics.less_than_zero(args[0], node.int_attr("bits"))
        if op == "select":
            return np.asarray(semantics.select(args[0], args[1], args[2]))
        if op == "reveal":
            return args[0]
        if op == "store_state":
            return self.store(node, args[0], int(args[1].reshape(())))
        if op == "rescale":
            raise InternalError(f"{node.name}: rescale cannot run, the truncation pass has to come first")
        raise InternalError(f"{node.name}: unknown primitive {op!r}")

    def leaf(self, node: RingNode, iteration: int) -> Int64:
        """The value of an input, a parameter or a constant."""
        if node.op == "const":
            return np.broadcast_to(np.asarray(semantics.wrap(node.int_attr("value"))), node.type.shape)
        if node.op == "input":
            name = node.str_attr("name")
            return _tensor(self.inputs, name, node, reshape=False)
        if node.op == "load_state":
            return self.states[node.str_attr("state")][: node.type.shape[0]]
        tensors = node.strs_attr("tensors")
        return _tensor(self.params, tensors[iteration if len(tensors) > 1 else 0], node, reshape=True)

    def store(self, node: RingNode, v: Int64, position: int) -> Int64:
        name, rows = node.str_attr("state"), node.int_attr("rows")
        if not 0 <= position <= rows - len(v):
            raise InputError(f"{len(v)} rows from {position} on are not within the {rows} rows of the state {name}")
        state = self.stored.setdefault(name, self.states[name].copy())
        state[position : position + len(v)] = v
        return v

    def trunc(self, node: RingNode, v: Int64) -> Int64:
        bits = node.int_attr("bits")
        if self.nearest or node.attr("variant") == "nearest":
            return np.asarray(semantics.trunc_nearest(v, bits))
        return np.asarray(semantics.trunc_probabilistic(v, bits, self.rng))


class _Profiled(_Machine):
    """A run that notes how large what is truncated is."""

    def __init__(
        self, inputs: Mapping[str, Int64], params: Mapping[str, Int64], nearest: bool, rng: np.random.Generator
    ) -> None:
        super().__init__(inputs, params, nearest, rng)
        self.magnitudes: dict[str, float] = {}

    def trunc(self, node: RingNode, v: Int64) -> Int64:
        mean = float(np.abs(v, dtype=np.float64).mean())
        self.magnitudes[node.name] = max(mean, self.magnitudes.get(node.name, 0.0))
        return super().trunc(node, v)


class _Observed(_Machine):
    """A run that looks for overflows, and notes ranges and traces."""

    def __init__(
        self,
        inputs: Mapping[str, Int64],
        params: Mapping[str, Int64],
        nearest: bool,
        rng: np.random.Generator,
        trace: bool,
        check: bool,
    ) -> None:
        super().__init__(inputs, params, nearest, rng)
        self.tracing, self.check = trace, check
        self.trace: dict[str, list[NDArray[np.float64]]] = {}
        self.ranges: list[RangeUse] = []
        self.overflows: list[Overflow] = []

    def observe(self, node: RingNode, values: Values, extents: dict[str, Extent], iteration: int) -> None:
        """Check `node` for overflow, and note its range and its trace."""
        value = values[node.name]
        if node.op == "repeat":
            return
        extents[node.name] = exact.extent(value)
        layer = node.origin.layer.replace("{i}", str(iteration))
        if node.op not in MOVES:
            found = checks.reached(node, [values[n] for n in node.inputs], [extents[n] for n in node.inputs])
            if found is not None:
                self.overflow(node, Overflow(node.name, node.op, layer, iteration, *found))
            self.ranges.append(_range_use(node, extents[node.name], layer, iteration))
        if self.tracing and node.result_of:
            self.trace.setdefault(node.result_of, []).append(decode(value, node.type.frac_bits))

    def overflow(self, node: RingNode, overflow: Overflow) -> None:
        self.overflows.append(overflow)
        if self.check:
            what = ", ".join(part for part in (node.origin.node or node.name, node.origin.graph_op) if part)
            raise RangeError(
                f"overflow: {overflow}",
                where=f"{overflow.layer or 'the model'} ({what})",
                todo="use fewer fractional bits, or calibration inputs that are closer to this one",
            )


def _range_use(node: RingNode, extent: Extent, layer: str, iteration: int) -> RangeUse:
    largest = max(-extent[0], extent[1]) / 2.0**node.type.frac_bits
    return RangeUse(node.name, node.result_of, layer, iteration, largest, node.type.bound)


def _states(graph: RingGraph, given: Mapping[str, Int64]) -> dict[str, Int64]:
    """Every state of a program, as the request before left it. InputError where one has another shape."""
    result = dict(given)
    for name, state in states_of(graph).items():
        found = result.setdefault(name, np.zeros((state.rows, *state.row), np.int64))
        if found.shape != (state.rows, *state.row) or found.dtype != np.int64:
            raise InputError(f"the state {name} has shape {found.shape}, not {(state.rows, *state.row)}")
    return result


def _tensor(store: Mapping[str, Int64], name: str, node: RingNode, *, reshape: bool) -> Int64:
    """The stored int64 array `name` in the shape of `node`."""
    if name not in store:
        raise InputError(f"{node.op} {name!r} is missing", todo=f"there are: {', '.join(sorted(store)) or 'none'}")
    value = np.asarray(store[name])
    if value.dtype != np.int64:
        raise InputError(f"{node.op} {name!r} has type {value.dtype}, not int64", todo="encode it first")
    fits = value.size == node.type.elements if reshape else value.shape == node.type.shape
    if not fits:
        raise InputError(f"{node.op} {name!r} has shape {value.shape}, not {node.type.shape}")
    return value.reshape(node.type.shape)
