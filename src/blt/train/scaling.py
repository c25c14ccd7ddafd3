"""Gradients divided, and steps left out, by numbers on the device: as PyTorch's fused optimisers.

Whoever steps an optimiser may give it two attributes, under the names that those look for:
``grad_scale``, what gradients are divided by, and ``found_inf``, 1 where the step is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def scaled(optimizer: Optimizer, grad: Tensor) -> Tensor:
    """A gradient as it is stepped with: divided, or 0 where the step is left out."""
    divisor, out = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
    if divisor is None or out is None:
        return grad
    return torch.where(out > 0, 0.0, grad / divisor.to(grad.dtype))


def taken_share(optimizer: Optimizer, share: float) -> Tensor | float:
    """``share``, or 0 where the step is left out  # []."""
    out = getattr(optimizer, "found_inf", None)
    return share if out is None else (1 - out) * share
