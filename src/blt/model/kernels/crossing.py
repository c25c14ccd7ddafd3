"""Attention between the bytes and the one patch that each belongs to: O(bytes x k), both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from blt.model.kernels.segments import segment_softmax, segment_sum


class Heads:
    """Products within heads, as matrix products: twice as fast as sums over parts of a row."""

    def __init__(self, like: Tensor, heads: int) -> None:
        eye = torch.eye(heads, dtype=like.dtype, device=like.device)
        self.spread = eye.repeat_interleave(like.shape[-1] // heads, dim=1)  # [H, d]
        self.gather = self.spread.t().contiguous()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [N, d] → the sum of a * b over each head's features  # [N, H] float32."""
        return torch.mm(a * b, self.gather).to(exact(a.dtype))

    def scale(self, a: Tensor, weights: Tensor) -> Tensor:
        """a [N, d] with each head's features times its weight [N, H]  # [N, d]."""
        return torch.mm(weights.to(a.dtype), self.spread).mul_(a)


def exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _slices_first(x: Tensor) -> Tensor:
    """[P, k, d] → [k, P, d], contiguous: whole rows are gathered and added fastest."""
    return x.transpose(0, 1).contiguous()


def own_bytes(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q [P, k, d] of patches, k and v [N, d] of their bytes → [P, k, d], and weights [N, k * H].

    Slice by slice, in wide rows.
    """
    h, q = Heads(k, heads), _slices_first(q)
    scores = [h.dot(q_slice.index_select(0, patch_ids), k) for q_slice in q]  # [N, H] each
    weights = segment_softmax(torch.cat(scores, 1).mul_(scale), patch_ids, q.shape[1])
    out = torch.zeros_like(q, dtype=v.dtype)
    for out_slice, weight in zip(out, weights.split(heads, 1), strict=True):
        out_slice.index_add_(0, patch_ids, h.scale(v, weight))
    return out.transpose(0, 1).contiguous(), weights


def own_bytes_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patch_ids: Tensor,
    weights: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of :func:`own_bytes`; what was gathered per byte is gathered again."""
    h, q, grad = Heads(k, heads), _slices_first(q), _slices_first(grad)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    d_weights = []
    for grad_slice, weight in zip(grad, weights.split(heads, 1), strict=True):
        grads = grad_slice.index_select(0, patch_ids)  # [N, d]
        d_weights.append(h.dot(grads, v))
        dv += h.scale(grads, weight)
    d_scores = torch.cat(d_weights, 1).mul_(weights)
    along = segment_sum(d_scores, patch_ids, q.shape[1]).index_select(0, patch_ids)
    d_scores = d_scores.sub_(along.mul_(weights)).mul_(scale)
    for q_slice, dq_slice, d in zip(q, dq, d_scores.split(heads, 1), strict=True):
        dk += h.scale(q_slice.index_select(0, patch_ids), d)
        dq_slice.index_add_(0, patch_ids, h.scale(k, d))
    return dq.transpose(0, 1).contiguous(), dk, dv


def own_patch(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q [N, d] of bytes, k and v [P, k, d] of their patch's slices → [N, d], weights [k, N, H].

    Slice by slice, in wide rows.
    """
    h, k, v = Heads(q, heads), _slices_first(k), _slices_first(v)
    scores = [h.dot(q, k_slice.index_select(0, patch_ids)) for k_slice in k]  # [N, H] each
    weights = torch.softmax(torch.stack(scores).mul_(scale), 0)
    out = torch.zeros_like(q)
    for v_slice, weight in zip(v, weights, strict=True):
        out += h.scale(v_slice.index_select(0, patch_ids), weight)
    return out, weights


def own_patch_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patch_ids: Tensor,
    weights: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of :func:`own_patch`; what was gathered per byte is gathered again."""
    h, k, v = Heads(q, heads), _slices_first(k), _slices_first(v)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    d_weights = [h.dot(grad, v_slice.index_select(0, patch_ids)) for v_slice in v]
    d_scores = torch.stack(d_weights).mul_(weights)
    d_scores = d_scores.sub_(d_scores.sum(0) * weights).mul_(scale)
    for s, (weight, d_score) in enumerate(zip(weights, d_scores, strict=True)):
        dv[s].index_add_(0, patch_ids, h.scale(grad, weight))
        dk[s].index_add_(0, patch_ids, h.scale(q, d_score))
        dq += h.scale(k[s].index_select(0, patch_ids), d_score)
    return dq, dk.transpose(0, 1).contiguous(), dv.transpose(0, 1).contiguous()
