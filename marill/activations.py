"""Polynomials in place of activation functions; other functions, so the model has to be trained with them."""

from __future__ import annotations

import torch
from torch import nn

from mpcc.compiler.ops.substitutes import quad

_GELUS = {"GELUActivation", "NewGELUActivation", "FastGELUActivation", "GELUTanh", "PytorchGELUTanh"}


class QuadGelu(nn.Module):
    """Quad in place of GELU (MPCFormer, arXiv 2211.01452): one product instead of a comparison and five."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as `x`."""
        return quad(x)


def is_gelu(module: object) -> bool:
    """Whether a module computes GELU, exactly or by its usual approximations."""
    return isinstance(module, nn.GELU) or type(module).__name__ in _GELUS
