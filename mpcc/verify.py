"""Secure or emulated outputs against the float model.

The reference needs nothing but the bundle: the client's graph and the graph inside MPC, both in float and with the
operations themselves instead of their approximations, on the weights as they are provisioned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.backends.emulator import EmulatorResult
from mpcc.clear import check_graph, client_values, tensors_of
from mpcc.compiler.bundle.contents import MPC
from mpcc.compiler.bundle.manifest import MASK_INPUT, Manifest
from mpcc.compiler.errors import BundleError, MpccError
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.ring.ir import RingNode
from mpcc.compiler.types import LABEL, LOGITS
from mpcc.inputs import prepare_inputs, random_inputs
from mpcc.passes.graph.choose_outputs import TELLS_LESS, main_output
from mpcc.passes.graph.roll_layers import roll_layers
from mpcc.runtime.emulator import Emulator
from mpcc.runtime.engines import DEFAULT, engine_class

if TYPE_CHECKING:
    from mpcc.exchange import Progress
    from mpcc.program import Prepared, Program

TOLERANCE = 0.02
Tensors = Mapping[str, torch.Tensor]
Float64 = NDArray[np.float64]


@dataclass
class Deviation:
    """How far values were from their reference, over all samples. `largest` is nan if a value is not finite."""

    name: str
    largest: float = 0.0
    total: float = 0.0
    count: int = 0
    magnitude: float = 0.0  # the largest reference value

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def add(self, got: Float64, want: Float64) -> None:
        """Note one more pair of arrays of equal shape."""
        if not want.size:
            return
        error = np.abs(got - want)
        worst = float(error.max())
        self.largest = worst if math.isnan(worst) else max(self.largest, worst)
        self.total += float(error.sum())
        self.count += want.size
        self.magnitude = max(self.magnitude, float(np.abs(want).max()))


@dataclass
class OutputCheck(Deviation):
    """One output; for logits also how many rows choose the same label as the reference, of how many.

    Of a label the error is by how much the reference's logit of the class that was told is below its largest.
    `rounding` is what the program itself may have rounded away: it may be wrong by so much more than the tolerance.
    """

    same_labels: int = 0
    rows: int = 0
    rounding: float = 0.0


@dataclass
class LayerCheck(Deviation):
    """All results of one layer.

    `worst` is the operation with the largest error; `ratio` the largest part of its declared bound that a value inside
    MPC used, and `tightest` the operation that did.
    """

    worst: str = ""
    ratio: float = 0.0
    tightest: str = ""


@dataclass
class Verification:
    """The outcome. It is `ok` when every output is within the tolerance."""

    engine: str
    reference: str
    tolerance: float
    samples: int = 0
    outputs: dict[str, OutputCheck] = field(default_factory=dict)
    layers: dict[str, LayerCheck] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(o.largest <= self.tolerance + o.rounding for o in self.outputs.values())  # false for nan

    def to_json(self) -> dict[str, object]:
        """Everything `mpcc verify --json` prints."""
        return {
            "ok": self.ok,
            "engine": self.engine,
            "reference": self.reference,
            "tolerance": self.tolerance,
            "samples": self.samples,
            "warnings": self.warnings,
            "outputs": [
                {
                    "name": o.name,
                    "max_error": _finite(o.largest),
                    "mean_error": _finite(o.mean),
                    "largest_value": _finite(o.magnitude),
                    "rounding": o.rounding,
                    "same_labels": o.same_labels if o.rows else None,
                    "rows": o.rows or None,
                }
                for o in self.outputs.values()
            ],
            "layers": [
                {
                    "layer": c.name,
                    "max_error": _finite(c.largest),
                    "mean_error": _finite(c.mean),
                    "largest_value": _finite(c.magnitude),
                    "worst_operation": c.worst,
                    "bound_used": _finite(c.ratio),
                    "tightest_operation": c.tightest,
                }
                for c in self.layers.values()
            ],
        }


def _finite(value: float) -> float | None:
    """JSON has no nan."""
    return value if math.isfinite(value) else None


def verify(
    program: Program,
    samples: Sequence[Mapping[str, object]],
    *,
    engine: str = DEFAULT,
    tolerance: float = TOLERANCE,
    layers: bool = False,
    model: ModelReference | None = None,
    seed: int = 0,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Run every sample on `engine` and compare with the float model.

    Args:
        samples: inputs as `Program.run` takes them.
        tolerance: the largest absolute error of an output that is accepted.
        layers: compare the results inside, too (emulator only).
        model: the original model; without it the bundle itself is the reference, see the module.
        seed: of the emulator's probabilistic truncation.
        truncate: cut texts that are longer than the program.

    Raises:
        MpccError: no samples, an unknown engine, a role's part of the bundle is not here, or inputs do not fit.
    """
    report = progress or (lambda name: None)
    if not samples:
        raise MpccError("there is nothing to verify with", todo="give at least one sample")
    if layers and not engine_class(engine).traces:
        raise MpccError("only the emulator can compare layers", todo="add --engine emulator, or leave out --layers")
    if not tolerance >= 0:
        raise MpccError(f"the tolerance {tolerance} is not a number from 0 on")
    inside = _Inside(program, layers)
    result = Verification(engine, "model" if model is not None else "bundle", tolerance)
    for i, sample in enumerate(samples):
        report("run")
        tensors = prepare_inputs(sample, program.bundle.manifest.inputs, inside.tokenizer, truncate=truncate)
        wanted = inside.reference(tensors)
        if layers:
            prepared = program.prepared(sample, truncate)
            result.warnings.extend(prepared.warnings)
            got, run = inside.emulated(prepared, seed + i)
            inside.compare_layers(result, wanted, run)
        else:
            ran = program.run(sample, engine, seed=seed + i, truncate=truncate, progress=progress)
            result.warnings.extend(ran.warnings)
            got = {name: _float64(t) for name, t in ran.outputs.items()}
        outputs = inside.outputs(wanted) if model is None else model.outputs(tensors)
        _compare_outputs(result, program.bundle.manifest, got, outputs, tensors.get(MASK_INPUT))
        result.samples += 1
    result.warnings[:] = dict.fromkeys(result.warnings)
    result.warnings.extend(
        f"{c.name or 'the model'}: a value reached {c.ratio:.2f} times its declared bound ({c.tightest})"
        for c in result.layers.values()
        if c.ratio > 1.0
    )
    return result


class _All:
    """A container that holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


class _Inside:
    """The float twin of a program: its reference, and how the emulator's values correspond to it."""

    def __init__(self, program: Program, layers: bool) -> None:
        bundle = program.bundle
        if bundle.client is None or bundle.provider is None:
            missing = "client" if bundle.client is None else "provider"
            raise BundleError(f"the bundle has no {missing}/ folder here", todo="verify where the program was compiled")
        check_graph(bundle.mpc, "cut", MPC)
        self.program, self.client, self.unrolled = program, bundle.client, bundle.mpc
        self.tokenizer = self.client.tokenizer_json
        self.layers = layers
        self.mpc = roll_layers(bundle.mpc)
        self.weights = tensors_of({**bundle.public, **bundle.provider})
        self.ring = {node.name: node for node, _ in bundle.ring.walk()}
        self.twins = dict(_twins(self.mpc))
        self.sources = dict(self.client.graph.outputs) | {o: _told_of(self.mpc, n) for o, n in self.mpc.outputs}

    def reference(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Values of the client's graph and of the one inside MPC, by node."""
        values = client_values(self.program.bundle, tensors)
        keep = _All() if self.layers else set(self.sources.values())
        return values | run_graph(self.mpc, _typed(values, self.mpc), self.weights, keep=keep)

    def outputs(self, values: Tensors) -> dict[str, torch.Tensor]:
        """What the program's outputs tell of, among the values of the reference."""
        return {o.name: values[self.sources[o.name]] for o in self.program.bundle.manifest.outputs}

    def emulated(self, prepared: Prepared, seed: int) -> tuple[dict[str, Float64], EmulatorResult]:
        """The outputs as reals, and everything that the emulator observed."""
        program = self.program
        answer, run = Emulator(seed).observed(program.deployment(), prepared.request, program.provider_weights())
        return {name: _float64(t) for name, t in program.outputs(prepared, answer).items()}, run

    def compare_layers(self, result: Verification, wanted: Tensors, run: EmulatorResult) -> None:
        """Note errors and ranges of one run, by layer."""
        for node, arrays in run.trace.items():
            for turn, got in enumerate(arrays):
                name = self._twin(node, turn)
                if name is None or name not in wanted or wanted[name].numel() != got.size:
                    continue
                layer, operation = self._place(name, node)
                check = result.layers.setdefault(layer, LayerCheck(layer))
                one = Deviation(operation)
                one.add(got.reshape(-1), _float64(wanted[name]).reshape(-1))
                if not one.largest <= check.largest or not check.worst:
                    check.worst = operation
                check.add(got.reshape(-1), _float64(wanted[name]).reshape(-1))
        for use in run.ranges:
            if not _has_range(self.ring[use.name]):
                continue
            origin = self.ring[use.name].origin
            name = self._twin(origin.node, use.iteration)
            layer, operation = (use.layer, origin.graph_op) if name is None else self._place(name, origin.node)
            check = result.layers.setdefault(layer, LayerCheck(layer))
            if use.ratio > check.ratio:
                check.ratio, check.tightest = use.ratio, operation

    def _twin(self, node: str, turn: int) -> str | None:
        """The node of the reference that a node of the rolled graph is in an iteration."""
        names = self.twins.get(node, ())
        return names[turn] if turn < len(names) else None

    def _place(self, name: str, rolled: str) -> tuple[str, str]:
        """Layer and operation; the members of a loop keep the layers they had."""
        if name not in self.unrolled:
            return rolled, ""
        return self.unrolled[name].origin.layer, self.unrolled[name].op


def _twins(graph: Graph) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Node of the rolled graph -> its name in `run_graph`'s result, one per iteration."""
    for node in graph:
        yield node.name, (node.name,)
        if node.body is not None:
            count = node.attr("count")
            turns = range(count if isinstance(count, int) else 0)
            for inner in node.body:
                yield inner.name, inner.members or tuple(f"{node.name}.{turn}.{inner.name}" for turn in turns)


def _has_range(node: RingNode) -> bool:
    """Whether it says something how much of its bound a value used: weights, constants and bits fit by construction."""
    return node.op not in ("const", "param", "lt") and not (node.op == "input" and node.type.frac_bits == 0)


def _typed(values: Tensors, graph: Graph) -> dict[str, torch.Tensor]:
    """The inputs of the graph inside MPC."""
    return {n.name: values[n.name] for n in graph if n.op == "input"}


# ** outputs **
def _told_of(graph: Graph, name: str) -> str:
    """The node that an output tells of: the logits of a label, the number that was rounded."""
    return graph[name].inputs[0] if graph[name].op in TELLS_LESS else name


def _compare_outputs(
    result: Verification, manifest: Manifest, got: Mapping[str, Float64], want: Tensors, mask: torch.Tensor | None
) -> None:
    for spec in manifest.outputs:
        found, expected = got[spec.name], _float64(want[spec.name])
        check = result.outputs.setdefault(spec.name, OutputCheck(spec.name))
        kept = kept_part(expected.shape, mask)
        if spec.name == LABEL and spec.whole and not spec.clear:
            _compare_labels(check, found.reshape(expected.shape[:-1])[kept], expected[kept])
            continue
        if manifest.output_frac_bits is not None and not spec.clear:
            check.rounding = 2.0 ** -(manifest.output_frac_bits + 1)
        check.add(found.reshape(expected.shape)[kept], expected[kept])
        if spec.name == LOGITS and expected.ndim and expected.shape[-1] > 1:
            same = found.reshape(expected.shape).argmax(-1)[kept] == expected.argmax(-1)[kept]
            check.same_labels += int(same.sum())
            check.rows += int(same.size)


def _compare_labels(check: OutputCheck, labels: Float64, logits: Float64) -> None:
    """Labels [...] against logits [..., n]; a label that is no class is wrong by more than any tolerance."""
    chosen, classes = labels.reshape(-1).astype(np.int64), logits.shape[-1]
    logits = logits.reshape(-1, classes)
    told = logits[np.arange(chosen.size), np.clip(chosen, 0, classes - 1)]
    check.add(np.where((chosen >= 0) & (chosen < classes), told, -np.inf), logits.max(-1))
    check.same_labels += int((chosen == logits.argmax(-1)).sum())
    check.rows += chosen.size


def kept_part(shape: tuple[int, ...], mask: torch.Tensor | None) -> NDArray[np.bool_]:
    """Which rows count: an output with one row per token means nothing where the input was padding."""
    if mask is None or len(shape) < 3 or tuple(mask.shape) != shape[: mask.dim()]:
        return np.ones(shape[:-1], np.bool_)
    kept = mask.bool().numpy().reshape(mask.shape + (1,) * (len(shape) - 1 - mask.dim()))
    return np.broadcast_to(kept, shape[:-1])


def _float64(tensor: torch.Tensor) -> Float64:
    return tensor.detach().to(torch.float64).numpy()


class ModelReference:
    """The original model, captured for the shapes of a program."""

    def __init__(self, program: Program, model: object, *, base: str | None = None, allow_pickle: bool = False) -> None:
        from mpcc.compiler.frontend.capture import capture

        specs = program.bundle.manifest.inputs
        shape = next((s.shape for s in specs if len(s.shape) == 2), None)
        example = random_inputs(specs, 1)[0] if isinstance(model, torch.nn.Module) else None
        rows, length = shape if shape is not None and example is None else (1, None)
        captured = capture(
            model, example, base=base, batch_size=rows, sequence_length=length, allow_pickle=allow_pickle
        )
        self.graph, self.tensors = captured.graph, captured.tensors
        outputs = dict(self.graph.outputs)
        if LABEL not in outputs:
            outputs[LABEL] = main_output(self.graph.outputs)[1]
        self.nodes = {o.name: outputs.get(o.name, "") for o in program.bundle.manifest.outputs}
        missing = {name for name, node in self.nodes.items() if not node}
        if missing:
            raise MpccError(f"the model has no output {min(missing)!r}", todo="name the model that was compiled")

    def outputs(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """What the program's outputs tell of, in float."""
        values = run_graph(self.graph, {n.name: tensors[n.name] for n in self.graph if n.op == "input"}, self.tensors)
        return {name: values[node] for name, node in self.nodes.items()}
