"""Cross-attention between bytes and patches, as gathers and sums over segments (paper §3.2, §3.3).

Every byte belongs to one patch, so no bytes x patches mask is needed: cost is O(bytes x k).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blt.model.layers import Linear, RMSNorm


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


def segment_max(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Maximum per segment: x [N, d], ids [N] → [segments, d]; no segment is empty."""
    index = ids[:, None].expand_as(x)
    return x.new_zeros(segments, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)


def segment_softmax(scores: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Softmax over each segment's rows: scores [N, ...], ids [N] → [N, ...] float32."""
    scores = scores.float()
    flat = scores.flatten(1)
    # Any constant per segment leaves a softmax unchanged, so the maximum needs no gradient.
    peak = segment_max(flat.detach(), ids, segments).view(segments, *scores.shape[1:])
    weights = (scores - peak.index_select(0, ids)).exp()
    return weights / gather(segment_sum(weights, ids, segments), ids)


class CrossAttention(nn.Module):
    """Projections shared by both directions; returns ``queries + attention(queries)``."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.query_norm = RMSNorm(dim, eps)
        self.key_value_norm = RMSNorm(dim, eps)
        self.query = Linear(dim, dim)
        self.key_value = Linear(dim, 2 * dim)
        self.out = Linear(dim, dim)

    def project(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[.., d] → q, k, v, each [.., H, D]."""
        q = self.query(self.query_norm(queries))
        k, v = self.key_value(self.key_value_norm(keys)).chunk(2, dim=-1)
        heads = (self.heads, -1)
        return q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)


class PatchesFromBytes(CrossAttention):
    """Encoder: k queries per patch attend to the bytes of their own patch."""

    def forward(self, patches: Tensor, x: Tensor, patch_ids: Tensor) -> Tensor:
        """patches [P, k, d], bytes x [N, d], patch_ids [N] → [P, k, d]."""
        q, k, v = self.project(patches, x)  # [P, k, H, D], [N, H, D] twice
        scores = (gather(q, patch_ids) * k[:, None]).sum(-1) * self.scale  # [N, k, H]
        weights = segment_softmax(scores, patch_ids, len(patches)).to(v.dtype)
        attended = segment_sum(weights[..., None] * v[:, None], patch_ids, len(patches))
        return patches + self.out(attended.flatten(2))


class _AttendToOwnPatch(torch.autograd.Function):
    """q [N, H, D], k and v [P, k, H, D] of each byte's patch → [N, H, D].

    Keeps its inputs only: what is gathered per byte is gathered again in backward.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, scale: float
    ) -> Tensor:
        weights = _slice_weights(q, k.index_select(0, patch_ids), scale)
        ctx.save_for_backward(q, k, v, patch_ids, weights)
        ctx.scale = scale
        return (weights[..., None] * v.index_select(0, patch_ids)).sum(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, patch_ids, weights = ctx.saved_tensors
        d_weights = (grad[:, None] * v.index_select(0, patch_ids)).sum(-1)
        dv = segment_sum(weights[..., None] * grad[:, None], patch_ids, len(v))
        d_scores = torch._softmax_backward_data(d_weights, weights, 1, weights.dtype)
        d_scores = (d_scores * ctx.scale)[..., None]  # [N, k, H, 1]
        dq = (d_scores * k.index_select(0, patch_ids)).sum(1)
        dk = segment_sum(d_scores * q[:, None], patch_ids, len(k))
        return dq, dk, dv, None, None


def _slice_weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """q [N, H, D], k [N, k, H, D] → attention weights over the k slices  # [N, k, H]."""
    scores = (q[:, None] * k).sum(-1) * scale
    return torch.softmax(scores, 1)


class BytesFromPatches(CrossAttention):
    """Decoder: each byte attends to the k slices of its one patch."""

    def forward(self, x: Tensor, patches: Tensor, patch_ids: Tensor) -> Tensor:
        """bytes x [N, d], patches [P, k, d], patch_ids [N] → [N, d]."""
        q, k, v = self.project(x, patches)  # [N, H, D], [P, k, H, D] twice
        attended = _AttendToOwnPatch.apply(q, k, v, patch_ids, self.scale)
        return x + self.out(attended.flatten(1))  # type: ignore[no-any-return]
