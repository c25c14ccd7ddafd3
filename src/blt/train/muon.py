"""Muon in the precision that is fast here, for steps that are decided where the gradients are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blt.machine.precision import choose_dtype
from blt.train.scaling import scaled, taken_share


class Muon(torch.optim.Muon):
    """PyTorch's Muon, but on devices without fast bfloat16 it orthogonalises in float32.

    On such CPUs the emulated products of PyTorch's took more than half of a training. State and
    options are PyTorch's. Steps are as long as AdamW's ("match_rms_adamw", arXiv 2502.16982), and
    are divided or left out as those of PyTorch's fused optimisers (:mod:`blt.train.scaling`).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, group)
        return loss

    def _update(self, matrix: Tensor, group: dict[str, Any]) -> None:
        assert matrix.grad is not None
        state, grad = self.state[matrix], scaled(self, matrix.grad)
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean, momentum = state["momentum_buffer"], group["momentum"]
        mean.lerp_(grad, taken_share(self, 1 - momentum, grad))
        update = grad.lerp(mean, momentum) if group["nesterov"] else mean
        coefficients, steps, eps = (group[key] for key in ("ns_coefficients", "ns_steps", "eps"))
        narrow = update.to(choose_dtype("auto", update.device))
        update = orthogonal(narrow, coefficients, steps, eps).to(matrix.dtype)
        matrix.mul_(1 - taken_share(self, group["lr"] * group["weight_decay"], grad))
        length = group["lr"] * 0.2 * math.sqrt(max(matrix.shape))
        matrix.sub_(update.mul_(taken_share(self, length, grad)))


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Nearly the matrix with all singular values 1, by the quintic Newton-Schulz iteration.

    Args:
        matrix: [r, c], in the precision to compute in.

    Returns:
        [r, c]; its singular values lie between about 0.5 and 1.5.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
