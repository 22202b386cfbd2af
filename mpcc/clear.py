"""What is computed in clear with PyTorch: the client's own part, and the way between its tensors and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.compiler.bundle.contents import GRAPH, MPC, Arrays, Bundle, ClientPart
from mpcc.compiler.bundle.manifest import COPY_AGAIN
from mpcc.compiler.errors import BundleError, InternalError
from mpcc.compiler.graph.interpret import run_graph
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.graph.verify import verify

Tensors = Mapping[str, torch.Tensor]
# the weights of client parts as tensors, made when a part is first used; a part whose graph is wrong is not in here
_WEIGHTS: WeakKeyDictionary[ClientPart, dict[str, torch.Tensor]] = WeakKeyDictionary()
_CHECKED: WeakSet[Bundle] = WeakSet()


def client_values(bundle: Bundle, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Run the client's graph on its inputs: the values that it shares by node, and the outputs that it has alone.

    Raises:
        BundleError: the client's part is not here, or a graph breaks a rule.
    """
    if bundle.client is None:
        raise BundleError("the bundle has no client/ folder here", todo="only the client can prepare inputs")
    check_program(bundle)
    return run_graph(bundle.client.graph, tensors, client_weights(bundle.client))


def check_program(bundle: Bundle) -> None:
    """Verify the client's graph, and what the engines will run as well: who has PyTorch knows the operations.

    Raises:
        BundleError: a graph breaks a rule.
    """
    if bundle not in _CHECKED:
        check_graph(bundle.mpc, "cut", MPC)
        _CHECKED.add(bundle)
    if bundle.client is not None:
        client_weights(bundle.client)


def client_weights(part: ClientPart) -> Tensors:
    """The public weights that the client computes with, by name; its graph has been verified. BundleError as above."""
    if part not in _WEIGHTS:
        check_graph(part.graph, "labelled", f"client/{GRAPH}")
        _WEIGHTS[part] = tensors_of(part.tensors)
    return _WEIGHTS[part]


def check_graph(graph: Graph, stage: str, name: str) -> None:
    """Verify a graph that was received, in the stage in which the file `name` of a bundle holds it.

    Raises:
        BundleError: it breaks a rule; the message says which.
    """
    try:
        verify(graph, stage)
    except InternalError as error:  # of our own graphs it would be a bug
        raise BundleError(f"the graph breaks a rule: {str(error)[:300]}", where=name, todo=COPY_AGAIN) from None


def tensors_of(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Arrays as tensors on the same memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def arrays_of(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Tensors as arrays, on the same memory where they are on the CPU."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def real_tensor(array: NDArray[Any]) -> torch.Tensor:
    """An output as the user gets it."""
    return torch.from_numpy(np.asarray(array)).to(torch.float32)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """An output of whole numbers, as integers."""
    return torch.round(tensor).to(torch.int64)
