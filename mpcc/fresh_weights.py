"""Another fine-tune for a program that is compiled already: only the provider's weights change.

Source, manifest, client's part and public weights stay byte for byte what they were, and with them byte code, hosts and
the parts that the other roles hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.clear import tensors_of
from mpcc.compiler.bundle.contents import Arrays, Bundle
from mpcc.compiler.bundle.manifest import Manifest
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pack import array_of
from mpcc.compiler.driver.pipeline import front_end
from mpcc.compiler.errors import BundleError, MpccError
from mpcc.compiler.frontend.capture import Captured, capture
from mpcc.compiler.frontend.partition import held
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.text import parse_graph, print_graph
from mpcc.inputs import random_inputs
from mpcc.passes.graph.change_model import changes_in
from mpcc.runtime.emulator import Emulator
from mpcc.verify import verify

if TYPE_CHECKING:
    from mpcc.program import Program

Tensors = Mapping[str, torch.Tensor]
_AGAIN = "compile it: mpcc compile"


def with_weights(
    program: Program,
    model: object,
    *,
    base: str | Path | None = None,
    calibration: Sequence[Mapping[str, object]] = (),
    allow_pickle: bool = False,
) -> Program:
    """The program with the private weights of another fine-tune of the same model.

    Args:
        model: as `mpcc.compile` takes it, an adapter with its `base`.
        calibration: inputs like the real ones: no value inside may leave the range that the program was compiled for.

    Raises:
        BundleError: the client's or the provider's part is not here.
        MpccError: the model computes something else, a public weight has changed, or a value does not fit the program.
    """
    bundle = program.bundle
    if bundle.client is None or bundle.provider is None:
        raise BundleError("weights are exchanged where the program was compiled: a part of it is missing here")
    if bundle.manifest.low_rank:
        raise MpccError("the program holds updates of low rank, which depend on the weights", todo=_AGAIN)
    captured = _captured(bundle.manifest, model, base, allow_pickle)
    _check_names(bundle.manifest, captured)
    front = front_end(captured, bundle.manifest.evidence, _options(bundle))
    if _meaning(parse_graph(print_graph(front.graph))) != _meaning(bundle.graph):
        raise MpccError("the model does not compute what the program does", todo=_AGAIN)
    _check_public(tensors_of({**bundle.client.tensors, **bundle.public}), front.tensors)
    found = replace(program, bundle=replace(bundle, provider=_private(bundle, front.tensors)))
    if calibration:
        _check_ranges(found, calibration)
    return found


def _captured(manifest: Manifest, model: object, base: str | Path | None, allow_pickle: bool) -> Captured:
    """The model, captured for the shapes of the program."""
    specs = manifest.inputs
    shape = next((s.shape for s in specs if len(s.shape) == 2), None)
    example = random_inputs(specs, 1)[0] if isinstance(model, torch.nn.Module) else None
    rows, length = shape if shape is not None and example is None else (1, None)
    return capture(
        str(model) if isinstance(model, Path) else model,
        example,
        base=base,
        batch_size=rows,
        sequence_length=length,
        allow_pickle=allow_pickle,
    )


def _options(bundle: Bundle) -> Options:
    """What the stages before the ranges look at."""
    manifest = bundle.manifest
    public = tuple(s.name for s in manifest.inputs if s.role == "public")
    changes = changes_in(bundle.graph)
    return Options(
        protocol=manifest.protocol,
        output=manifest.output,
        output_frac_bits=manifest.output_frac_bits,
        public_inputs=public,
        approximations=changes,
    )


def _check_names(manifest: Manifest, model: Captured) -> None:
    known = {e.tensor for e in manifest.evidence}
    if different := sorted(known ^ set(held(model))):
        word = "has no weight" if different[0] in known else "has a weight that the program does not know:"
        raise MpccError(f"the model {word} {different[0]}", todo=_AGAIN)


def _meaning(graph: Graph) -> tuple[object, ...]:
    """What a graph computes, without where: the cut depends on ranges."""
    nodes = tuple((n.name, n.op, n.inputs, n.attrs, n.type) for n in graph)
    return nodes, graph.outputs


def _check_public(known: Tensors, found: Tensors) -> None:
    """MpccError if a weight that others hold in clear is another one now."""
    for name, tensor in known.items():
        if name not in found or not torch.equal(tensor, found[name].to(tensor.dtype)):
            raise MpccError(
                f"the public weight {name} is not the one of the program",
                todo="only private weights may change; " + _AGAIN,
            )


def _private(bundle: Bundle, tensors: Tensors) -> Arrays:
    """The provider's new weights, each within the bound that the program's text states."""
    assert bundle.provider is not None
    bounds = {
        name: node.type.bound
        for node, _ in bundle.ring.walk()
        if node.op == "param"
        for name in node.strs_attr("tensors")
    }
    result: dict[str, NDArray[Any]] = {}
    for name, old in bundle.provider.items():
        new = array_of(tensors[name]) if name in tensors else None
        if new is None or new.shape != old.shape:
            raise MpccError(f"the model has no weight {name} of the program's shape", todo=_AGAIN)
        largest = float(np.abs(new).max()) if new.size else 0.0
        if not largest <= bounds.get(name, 0.0):  # also where it is no number
            raise MpccError(f"the weight {name} leaves the range that the program was compiled for", todo=_AGAIN)
        result[name] = new
    return result


def _check_ranges(program: Program, samples: Sequence[Mapping[str, object]]) -> None:
    """MpccError if a value inside the program leaves its declared bound on one of the samples."""
    checked = verify(program, samples, engine=Emulator.name, layers=True)
    if over := [c for c in checked.layers.values() if not c.ratio <= 1.0]:
        raise MpccError(
            f"a value in {over[0].name or 'the model'} leaves the range that the program was compiled for", todo=_AGAIN
        )
    if not checked.ok:
        worst = max(checked.outputs.values(), key=lambda o: o.largest)
        raise MpccError(f"the output {worst.name} is {worst.largest:.2g} away from the float model", todo=_AGAIN)
