"""Gradients of a norm with its sum, whatever the gains are."""

from __future__ import annotations

import pytest
import torch

from blt.model.kernels.fused import AddNorm


@pytest.mark.parametrize("gain", [0.0, 1e-42, 1e-39])
def test_a_gain_whose_inverse_is_infinite_leaves_gradients_finite(gain: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 8, requires_grad=True), torch.ones(8)
    weight[3] = gain
    weight.requires_grad_()
    _, out = AddNorm.apply(x, None, weight, 1e-5, torch.float32)
    (out * torch.randn(6, 8)).sum().backward()
    for leaf in (x, weight):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
