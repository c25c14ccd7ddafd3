"""Sums, maxima and softmax over segments of rows, such as the bytes of patches, without padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blt.model.kernels.rows import is_step


class SegmentSum(torch.autograd.Function):
    """Sum of rows per segment: x [N, ...], ids [N] → [segments, ...]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor, segments: int) -> Tensor:
        ctx.save_for_backward(ids)
        return x.new_zeros(segments, *x.shape[1:]).index_add_(0, ids, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        return grad.index_select(0, ids), None, None


def segment_sum(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    return SegmentSum.apply(x, ids, segments)  # type: ignore[no-any-return]


class Gather(torch.autograd.Function):
    """Rows of x [P, ...] at ids [N] → [N, ...]; its gradient is a segment sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(x)
        return x.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        return segment_sum(grad, ids, ctx.rows), None


def gather(x: Tensor, ids: Tensor) -> Tensor:
    return Gather.apply(x, ids)  # type: ignore[no-any-return]


class SegmentMax(torch.autograd.Function):
    """Maximum per segment; rows that share it share its gradient evenly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor, segments: int) -> Tensor:
        index = ids[:, None].expand_as(x)
        peak = x.new_zeros(segments, x.shape[1])
        peak.scatter_reduce_(0, index, x, "amax", include_self=False)
        ctx.save_for_backward(x == peak.index_select(0, ids), ids)
        return peak

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        reached, ids = ctx.saved_tensors
        reached = reached.to(grad.dtype)
        share = grad / torch.zeros_like(grad).index_add_(0, ids, reached)
        return reached.mul_(share.index_select(0, ids)), None, None


def segment_max(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Maximum per segment: x [N, d], ids [N] → [segments, d]; no segment is empty."""
    if segments == 1 and is_step(x):
        return x.amax(0, keepdim=True)
    return SegmentMax.apply(x, ids, segments)  # type: ignore[no-any-return]


def segment_softmax(scores: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Softmax over each segment's rows: scores [N, c], ids [N] → [N, c]."""
    peak = segment_max(scores, ids, segments)
    weights = (scores - peak.index_select(0, ids)).exp_()
    total = segment_sum(weights, ids, segments)
    return weights.div_(total.index_select(0, ids))
