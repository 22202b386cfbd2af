"""What the client computes in clear with PyTorch, and the way between its tensors and the arrays of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpcc.compiler.errors import BundleError
from mpcc.compiler.graph.interpret import run_graph

if TYPE_CHECKING:
    from mpcc.compiler.bundle.read import Bundle

Tensors = Mapping[str, torch.Tensor]


def client_values(bundle: Bundle, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Run the client's graph on its inputs: the values that it shares by node, and the outputs that it has alone.

    Raises:
        BundleError: the client's part is not here.
    """
    if bundle.client is None:
        raise BundleError("the bundle has no client/ folder here", todo="only the client can prepare inputs")
    return run_graph(bundle.client.graph, tensors, tensors_of(bundle.client.tensors))


def tensors_of(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Arrays, or tensors, as tensors."""
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def arrays_of(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Tensors, or arrays, as arrays."""
    return {name: torch.as_tensor(value).detach().numpy() for name, value in tensors.items()}


def real_tensor(array: NDArray[Any]) -> torch.Tensor:
    """An output as the user gets it."""
    return torch.from_numpy(np.asarray(array)).to(torch.float32)
