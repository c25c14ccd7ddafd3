"""Muon in the precision that is fast here, for steps that are decided where the gradients are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from blt.machine.precision import choose_dtype
from blt.train.scaling import scaled, taken_share

# Numbers in matrices of one shape that are stepped together. A GPU gains whatever it need not
# launch; on a CPU products of large stacks took a sixth longer than one by one.
STACKED, STACKED_ON_CPU = 2**22, 2**16


class Muon(torch.optim.Muon):
    """PyTorch's Muon, but on devices without fast bfloat16 it orthogonalises in float32.

    On such CPUs the emulated products of PyTorch's took more than half of a training. State and
    options are PyTorch's. Steps are as long as AdamW's ("match_rms_adamw", arXiv 2502.16982), and
    are divided or left out as those of PyTorch's fused optimisers (:mod:`blt.train.scaling`).
    Matrices of one shape are stepped together: alone, each takes some forty operations.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrices in _alike([m for m in group["params"] if m.grad is not None]):
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices that are alike."""
        means = [self._mean(matrix) for matrix in matrices]
        grad = scaled(self, _stacked([matrix.grad for matrix in matrices]))  # [r, c] or [m, r, c]
        mean, momentum = _stacked(means), group["momentum"]
        mean.lerp_(grad, taken_share(self, 1 - momentum))
        update = grad.lerp(mean, momentum) if group["nesterov"] else mean
        coefficients, steps, eps = (group[key] for key in ("ns_coefficients", "ns_steps", "eps"))
        narrow = update.to(choose_dtype("auto", update.device))
        update = orthogonal(narrow, coefficients, steps, eps).to(matrices[0].dtype)
        length = group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
        update.mul_(taken_share(self, length))
        kept = 1 - taken_share(self, group["lr"] * group["weight_decay"])
        if len(matrices) == 1:  # its mean has moved already
            matrices[0].mul_(kept).sub_(update)
            return
        torch._foreach_copy_(means, list(mean.unbind()))
        torch._foreach_mul_(matrices, kept)
        torch._foreach_sub_(matrices, list(update.unbind()))

    def _mean(self, matrix: Tensor) -> Tensor:
        """The running mean of a matrix's gradients."""
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def _alike(matrices: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Matrices of one shape together, where they are small; divided ones alone."""
    groups: dict[Any, list[Tensor]] = {}
    for number, matrix in enumerate(matrices):
        alone = number if isinstance(matrix, DTensor) else None
        groups.setdefault((matrix.shape, matrix.dtype, alone), []).append(matrix)
    for group in groups.values():
        numbers = STACKED_ON_CPU if group[0].device.type == "cpu" else STACKED
        most = max(1, numbers // group[0].numel())
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _stacked(matrices: list[Any]) -> Tensor:
    """[r, c], the only one itself, or all as [m, r, c]."""
    return matrices[0] if len(matrices) == 1 else torch.stack(matrices)


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Nearly the matrix with all singular values 1, by the quintic Newton-Schulz iteration.

    Args:
        matrix: [r, c] or several [m, r, c], in the precision to compute in.

    Returns:
        as given; singular values lie between about 0.5 and 1.5.
    """
    a, b, c = coefficients
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps)
    add_product = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(steps):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
