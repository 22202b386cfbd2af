"""Polynomials in place of activation functions; other functions, so the model has to be trained with them."""

from __future__ import annotations

import torch
from torch import nn

_GELUS = {"GELUActivation", "NewGELUActivation", "FastGELUActivation", "GELUTanh", "PytorchGELUTanh"}


class QuadGelu(nn.Module):
    """x^2/8 + x/4 + 1/2 in place of GELU (MPCFormer, arXiv 2211.01452): one product instead of a comparison and five.

    Written as (x + 1)^2/8 + 3/8, whose only product is a square.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as `x`."""
        return torch.square(x + 1.0) * 0.125 + 0.375


def is_gelu(module: object) -> bool:
    """Whether a module computes GELU, exactly or by its usual approximations."""
    return isinstance(module, nn.GELU) or type(module).__name__ in _GELUS
