"""Optimisers: AdamW for dense matrices, a lazy row-wise Adam for hash tables; and the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from blt.model.embedding import NgramTables
from blt.train.muon import Muon
from blt.train.parallel import local
from blt.train.scaling import scaled, taken_share

MatrixOptimizer = Literal["adamw", "muon"]
LR_SHARE = "lr_share"  # key of a group: what its learning rate is multiplied with


class RowwiseAdam(Optimizer):
    """Adam without momentum and with one second moment per row.

    A row's moment is the running mean square of its gradients, over the steps that touched it:
    rows that a step does not touch cost nothing and stay as they are. State: two floats per row.

    Args:
        params: tables [rows, d], whole with sparse COO gradients over rows, or divided along rows
            with dense ones, of which rows that are all zero count as untouched. Of a sparse one,
            rows that repeat the one before are none.
        lr: step length, as root mean square per element.
        beta: decay of the second moment.
        eps: added to the root of the second moment.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, beta: float = 0.95, eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, **{key: group[key] for key in ("lr", "beta", "eps")})

    def _update(self, table: Tensor, lr: float, beta: float, eps: float) -> None:
        state = self.state[table]
        if not state:
            state.update(self.new_state(table))
        mean_square, weight = local(state["mean_square"]), local(state["weight"])
        assert table.grad is not None
        if not table.grad.is_sparse:
            grad = scaled(self, local(table.grad))  # [rows, d]
            norm = torch.linalg.vector_norm(grad, dim=-1, dtype=torch.float32)
            share = torch.where(norm > 0, 1 - beta, 0.0)  # of the newest in the mean
            mean_square.lerp_(norm.square_().div_(grad.shape[1]), share)
            weight.lerp_(torch.ones_like(weight), share)
            scale = torch.where(share > 0, _step_length(mean_square, weight, lr, eps), 0.0)
            local(table).addcmul_(grad, scale[:, None].to(grad.dtype))
            return
        grad = coalesced(table.grad)
        rows, values = grad.indices()[0], scaled(self, grad.values())  # [R], [R, d]
        is_new = rows.diff(prepend=rows[:1] - 1) != 0
        own = is_new.cumsum(0) - 1  # where the row of each is named first
        square = values.float().square().mean(-1)
        newest = taken_share(self, 1 - beta)  # its share in the mean
        mean_square[rows] = mean_square[rows].lerp_(square, newest)[own]
        weight[rows] = weight[rows].lerp_(torch.ones_like(square), newest)
        scale = _step_length(mean_square[rows], weight[rows].clamp_min_(1e-30), lr, eps)
        scale = torch.where(is_new, scale, 0.0)
        table.index_add_(0, rows, (values * scale[:, None]).to(table.dtype))

    @staticmethod
    def new_state(table: Tensor) -> dict[str, Tensor]:
        """The state of a table that no step has touched, divided like it."""
        like = table.detach()[:, 0]
        names = ("mean_square", "weight")
        return {name: torch.zeros_like(like, dtype=torch.float32) for name in names}


def _step_length(mean_square: Tensor, weight: Tensor, lr: float, eps: float) -> Tensor:
    """What gradients of rows are multiplied with  # [R].

    ``weight`` is what the weights of all means so far sum up to: it takes out their bias.
    """
    return -lr / ((mean_square / weight).sqrt_() + eps)


def optimizers(
    model: nn.Module,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    matrix_optimizer: MatrixOptimizer = "adamw",
    lr_shares: Mapping[str, float] | None = None,
) -> list[Optimizer]:
    """AdamW for all that is dense, RowwiseAdam for hash tables.

    Only matrices decay; norms and embeddings do not. Gradients of tables become sparse, unless they
    are divided among processes, which exchange dense ones.

    Args:
        matrix_optimizer: of matrices inside layers. "muon": steps of equal length in all
            directions, as long as AdamW's (arXiv 2502.16982).
        lr_shares: what names of parameters begin with, and the share of the learning rate that
            these have, which their groups keep under LR_SHARE; others have all of it.
    """
    tables, embeddings = [], {"byte", "embedding"}  # of models that are not BLTs
    for name, module in model.named_modules():
        if isinstance(module, NgramTables) and module.ngram.requires_grad:
            module.sparse_gradients = not isinstance(module.ngram, DTensor)
            tables.append(module.ngram)
            embeddings |= {f"{name}.byte", f"{name}.ngram"}
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is table for table in tables):
            decays = parameter.dim() == 2 and name not in embeddings
            (matrices if decays else others).append(parameter)
    inner: list[Tensor] = []
    if matrix_optimizer == "muon":
        heads = {id(p) for name, p in model.named_parameters() if name.endswith("head.weight")}
        inner = [matrix for matrix in matrices if id(matrix) not in heads]
        matrices = [matrix for matrix in matrices if id(matrix) in heads]
    shares = {
        id(parameter): share
        for prefix, share in (lr_shares or {}).items()
        for name, parameter in model.named_parameters()
        if name.startswith(prefix)
    }
    groups = [*_groups(matrices, shares, weight_decay), *_groups(others, shares, 0.0)]
    made: list[Optimizer] = [AdamW(groups, lr=lr, betas=betas, fused=True)]
    if inner:
        groups = _groups(inner, shares, weight_decay)
        made.append(Muon(groups, lr, adjust_lr_fn="match_rms_adamw"))
    tables = [table for table in tables if len(table)]
    return [*made, RowwiseAdam(tables, lr, betas[1])] if tables else made


def _groups(
    parameters: Sequence[Tensor], shares: Mapping[int, float], weight_decay: float
) -> list[dict[str, Any]]:
    """A group for each share of the learning rate, which is 1 where ``shares`` has no other."""
    groups: dict[float, dict[str, Any]] = {}
    for parameter in parameters:
        share = shares.get(id(parameter), 1.0)
        group = {"params": [], "weight_decay": weight_decay, LR_SHARE: share}
        groups.setdefault(share, group)["params"].append(parameter)
    return list(groups.values())


def coalesced(grad: Tensor, rows_once: bool = False) -> Tensor:
    """``grad`` with each row once.

    One backward pass leaves hash tables' gradients so, but autograd forgets to say it; sorting them
    again would cost as much as half of the other gradients.

    Args:
        rows_once: that is known, and need not be read from the device.
    """
    if grad.is_coalesced():
        return grad
    if not rows_once and not bool((grad._indices()[0].diff() > 0).all()):
        return grad.coalesce()
    return torch.sparse_coo_tensor(
        grad._indices(), grad._values(), grad.shape, is_coalesced=True, check_invariants=False
    )


def learning_rate(
    progress: float, lr: float, warmup: float, min_ratio: float, decay: float | None = None
) -> float:
    """Linear warm-up, then a cosine down to ``min_ratio * lr``, or constant with a linear decay.

    Args:
        progress: share of the training that is done, 0..1.
        warmup: share of the training that warms up.
        decay: share of the training, at its end, of the linear decay; None: a cosine.
    """
    if progress < warmup:
        return lr * progress / warmup
    if decay is not None:
        left = min(1.0, (1 - progress) / max(1e-9, decay))
        return lr * (min_ratio + (1 - min_ratio) * left)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))))
    return lr * (min_ratio + (1 - min_ratio) * cosine)
