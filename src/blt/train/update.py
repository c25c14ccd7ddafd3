"""One update of all weights, decided where the gradients are: the host need not wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from blt.model.kernels.bags import merge_rows
from blt.train.optim import LR_SHARE, coalesced
from blt.train.parallel import whole

USUAL_STEPS = 50  # over which the usual norm of the gradient is averaged


@dataclass
class Guard:
    """Which steps are left out, and how many were: numbers on the device of the gradients.

    A step is left out where loss or gradient is not finite, or its norm ``most_norm`` times the
    usual one: the mean over the last steps that were taken.
    """

    most_norm: float | None
    counts: Tensor  # [3] float64: steps taken; left out; left out in a row, up to now
    usual_norm: Tensor  # [] float64

    @classmethod
    def new(cls, device: torch.device, most_norm: float | None) -> Guard:
        zeros = torch.zeros(4, dtype=torch.float64, device=device)
        return cls(most_norm, zeros[:3], zeros[3])

    def leaves_out(self, nats: Tensor, norm: Tensor) -> Tensor:
        """Whether this step is left out, which is counted  # [] bool."""
        norm = norm.double()
        out = ~(nats.isfinite() & norm.isfinite())
        if self.most_norm is not None:
            out |= (self.usual_norm > 0) & (norm > self.most_norm * self.usual_norm)
        taken, left_out, in_a_row = self.counts.unbind()
        self.counts = torch.stack((taken + ~out, left_out + out, (in_a_row + 1) * out))
        share = 1 / self.counts[0].clamp(1, USUAL_STEPS)
        moved = self.usual_norm + share * (norm - self.usual_norm)
        self.usual_norm = torch.where(out, self.usual_norm, moved)
        return out

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint that says what was left out; read from the device."""
        _, left_out, in_a_row = map(int, self.counts.tolist())
        usual = self.usual_norm.item()
        return {"skipped": left_out, "skipped_in_a_row": in_a_row, "usual_norm": usual}

    def restore(self, steps: int, values: dict[str, Any]) -> None:
        """As it stood after so many steps."""
        skipped, in_a_row = values["skipped"], values["skipped_in_a_row"]
        self.counts = self.counts.new_tensor([steps - skipped, skipped, in_a_row])
        self.usual_norm = self.usual_norm.new_tensor(values["usual_norm"])


class RowGradients:
    """Sparse gradients of several backward passes, which are added up without waiting for a device.

    PyTorch would lay them end to end, and then have to know how many rows there are.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self._parts: dict[Tensor, list[Tensor]] = {}

    def take(self) -> None:
        """Put aside what the last backward pass has left."""
        for parameter in self.parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                self._parts.setdefault(parameter, []).append(parameter.grad)
                parameter.grad = None

    def give_back(self) -> None:
        """Make the sums the gradients; their last row may be repeated, with zeros."""
        for parameter in list(self._parts):
            parts = self._parts.pop(parameter)
            found = torch.cat([part._indices()[0] for part in parts])
            values = torch.cat([part._values() for part in parts])
            parts.clear()  # or they would lie there twice while they are added up
            rows, sums = merge_rows(found, values)
            parameter.grad = torch.sparse_coo_tensor(
                rows[None], sums, parameter.shape, is_coalesced=True, check_invariants=False
            )


def total_norm(parameters: Sequence[Tensor], rows_once: bool = False) -> Tensor:
    """The norm of all gradients together, dense and sparse  # [] float32.

    Args:
        rows_once: sparse gradients are known to name each row once.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            # The norm of a row is that of its sum.
            parameter.grad = coalesced(parameter.grad, rows_once)
    grads = _grads(parameters)
    return whole(nn.utils.get_total_norm(grads))


def update(
    optimizers: Sequence[Optimizer],
    parameters: Sequence[Tensor],
    *,
    lr: float,
    clip: float,
    norm: Tensor,
    out: Tensor,
) -> None:
    """Change the weights, with gradients scaled so that their norm is at most ``clip``.

    Args:
        lr: learning rate.
        norm: of all gradients  # []
        out: whether all stays as it is  # [] bool
    """
    divisor = (norm / clip).clamp(min=1.0).float()  # of the gradients
    divided = any(isinstance(parameter, DTensor) for parameter in parameters)
    taken = True
    if divided:  # PyTorch's optimisers take no divisor beside divided weights
        taken = not bool(out)
        torch._foreach_div_(_grads(parameters), divisor)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get(LR_SHARE, 1.0)
        if not divided:  # the names under which PyTorch's own look for them
            optimizer.grad_scale, optimizer.found_inf = divisor, out.float()  # type: ignore[attr-defined]
        if taken:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _grads(parameters: Sequence[Tensor]) -> list[Tensor]:
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [grad._values() if grad.is_sparse else grad for grad in grads]
