"""Sums, maxima and softmax over segments of rows, such as the bytes of patches, without padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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


def peaks(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Maximum per segment: x [N, d], ids [N] → [segments, d]; no segment is empty."""
    index = ids[:, None].expand_as(x)
    return x.new_zeros(segments, x.shape[1]).scatter_reduce_(
        0, index, x, "amax", include_self=False
    )


def peaks_backward(grad: Tensor, x: Tensor, ids: Tensor, peak: Tensor) -> Tensor:
    """Gradient of x of :func:`peaks`; rows that share a maximum share its gradient evenly."""
    reached = (x == peak.index_select(0, ids)).to(grad.dtype)
    share = grad / torch.zeros_like(grad).index_add_(0, ids, reached)
    return reached.mul_(share.index_select(0, ids))


def segment_softmax(scores: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Softmax over each segment's rows: scores [N, c], ids [N] → [N, c]."""
    peak = peaks(scores, ids, segments)
    weights = (scores - peak.index_select(0, ids)).exp_()
    total = segment_sum(weights, ids, segments)
    return weights.div_(total.index_select(0, ids))
