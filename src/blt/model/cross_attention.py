"""Cross-attention between bytes and patches, as gathers and sums over segments (paper §3.2, §3.3).

Every byte belongs to one patch, so no bytes x patches mask is needed: cost is O(bytes x k).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.layers import Linear, RMSNorm, is_step


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


class CrossAttention(nn.Module):
    """Projections shared by both directions.

    The update of the queries is ``queries + attention(queries)``, so that the residual stream
    becomes ``2 * queries + attention(queries)``: released weights need it so.
    """

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.query_norm = RMSNorm(dim, eps)
        self.key_value_norm = RMSNorm(dim, eps)
        self.query = Linear(dim, dim)
        self.key_value = Linear(dim, 2 * dim)
        self.out = Linear(dim, dim)

    def keys_values(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to, [.., d] → k, v, each [.., d]."""
        k, v = self.key_value(self.key_value_norm(read)).chunk(2, dim=-1)
        return k, v


class _Heads:
    """Products within heads, as matrix products: twice as fast as sums over parts of a row."""

    def __init__(self, like: Tensor, heads: int) -> None:
        eye = torch.eye(heads, dtype=like.dtype, device=like.device)
        self.spread = eye.repeat_interleave(like.shape[-1] // heads, dim=1)  # [H, d]
        self.gather = self.spread.t().contiguous()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [N, d] → the sum of a * b over each head's features  # [N, H] float32."""
        return torch.mm(a * b, self.gather).to(_exact(a.dtype))

    def scale(self, a: Tensor, weights: Tensor) -> Tensor:
        """a [N, d] with each head's features times its weight [N, H]  # [N, d]."""
        return torch.mm(weights.to(a.dtype), self.spread).mul_(a)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _slices_first(x: Tensor) -> Tensor:
    """[P, k, d] → [k, P, d], contiguous: whole rows are gathered and added fastest."""
    return x.transpose(0, 1).contiguous()


class _AttendToOwnBytes(torch.autograd.Function):
    """q [P, k, d] of patches, k and v [N, d] of their bytes → [P, k, d].

    Slice by slice, in wide rows; what is gathered per byte is gathered again in backward.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
    ) -> Tensor:
        h, q = _Heads(k, heads), _slices_first(q)
        scores = [h.dot(q_slice.index_select(0, patch_ids), k) for q_slice in q]  # [N, H] each
        weights = segment_softmax(torch.cat(scores, 1).mul_(scale), patch_ids, q.shape[1])
        out = torch.zeros_like(q)
        for out_slice, weight in zip(out, weights.split(heads, 1), strict=True):
            out_slice.index_add_(0, patch_ids, h.scale(v, weight))
        ctx.save_for_backward(q, k, v, patch_ids, weights)
        ctx.heads, ctx.scale = heads, scale
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, patch_ids, weights = ctx.saved_tensors
        h, grad = _Heads(k, ctx.heads), _slices_first(grad)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_weights = []
        for grad_slice, weight in zip(grad, weights.split(ctx.heads, 1), strict=True):
            grads = grad_slice.index_select(0, patch_ids)  # [N, d]
            d_weights.append(h.dot(grads, v))
            dv += h.scale(grads, weight)
        d_scores = torch.cat(d_weights, 1).mul_(weights)
        along = segment_sum(d_scores, patch_ids, q.shape[1]).index_select(0, patch_ids)
        d_scores = d_scores.sub_(along.mul_(weights)).mul_(ctx.scale)
        for q_slice, dq_slice, d in zip(q, dq, d_scores.split(ctx.heads, 1), strict=True):
            dk += h.scale(q_slice.index_select(0, patch_ids), d)
            dq_slice.index_add_(0, patch_ids, h.scale(k, d))
        return dq.transpose(0, 1), dk, dv, None, None, None


class PatchesFromBytes(CrossAttention):
    """Encoder: k queries per patch attend to the bytes of their own patch."""

    def forward(self, patches: Tensor, x: Tensor, patch_ids: Tensor) -> Tensor:
        """patches [P, k, d], bytes x [N, d], patch_ids [N] → update of patches [P, k, d]."""
        q = self.query(self.query_norm(patches))  # [P, k, d]
        k, v = (part.contiguous() for part in self.keys_values(x))  # [N, d]
        if len(patches) == 1 and is_step(x):
            return patches + self.out(self._attend_one(q, k, v))  # type: ignore[no-any-return]
        attended = _AttendToOwnBytes.apply(q, k, v, patch_ids, self.heads, self.scale)
        return patches + self.out(attended)  # type: ignore[no-any-return]

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, k, d] of the only patch, k and v [N, d] of all bytes → [1, k, d]."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in (q[0], k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)[None]


class _AttendToOwnPatch(torch.autograd.Function):
    """q [N, d] of bytes, k and v [P, k, d] of their patch's slices → [N, d].

    Slice by slice, in wide rows; what is gathered per byte is gathered again in backward.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
    ) -> Tensor:
        h, k, v = _Heads(q, heads), _slices_first(k), _slices_first(v)
        scores = [h.dot(q, k_slice.index_select(0, patch_ids)) for k_slice in k]  # [N, H] each
        weights = torch.softmax(torch.stack(scores).mul_(scale), 0)  # [k, N, H]
        out = torch.zeros_like(q)
        for v_slice, weight in zip(v, weights, strict=True):
            out += h.scale(v_slice.index_select(0, patch_ids), weight)
        ctx.save_for_backward(q, k, v, patch_ids, weights)
        ctx.heads, ctx.scale = heads, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, patch_ids, weights = ctx.saved_tensors
        h = _Heads(q, ctx.heads)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_weights = [h.dot(grad, v_slice.index_select(0, patch_ids)) for v_slice in v]
        d_scores = torch.stack(d_weights).mul_(weights)
        d_scores = d_scores.sub_(d_scores.sum(0) * weights).mul_(ctx.scale)
        for s, (weight, d_score) in enumerate(zip(weights, d_scores, strict=True)):
            dv[s].index_add_(0, patch_ids, h.scale(grad, weight))
            dk[s].index_add_(0, patch_ids, h.scale(q, d_score))
            dq += h.scale(k[s].index_select(0, patch_ids), d_score)
        return dq, dk.transpose(0, 1), dv.transpose(0, 1), None, None, None


class BytesFromPatches(CrossAttention):
    """Decoder: each byte attends to the k slices of its one patch."""

    def forward(
        self, x: Tensor, delta: Tensor | None, k: Tensor, v: Tensor, patch_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """bytes x + delta [N, d], k and v [P, k, d] of patches, ids [N] → new x, delta [N, d]."""
        x, normed = self.query_norm.add(x, delta)
        q = self.query(normed)  # [N, d]
        if is_step(x):
            attended = self._attend_few(q, k[patch_ids], v[patch_ids])
        else:
            attended = _AttendToOwnPatch.apply(q, k, v, patch_ids, self.heads, self.scale)
        return x, x + self.out(attended)

    def _attend_few(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [N, d] of bytes, k and v [N, k, d] of the patch that each sees → [N, d]."""
        k, v = (x.unflatten(-1, (self.heads, -1)) for x in (k, v))  # [N, k, H, D]
        scores = (q.unflatten(-1, (1, self.heads, -1)) * k).sum(-1, keepdim=True)
        weights = torch.softmax(scores.mul_(self.scale), 1)  # [N, k, H, 1]
        return (weights * v).sum(1).flatten(1)
