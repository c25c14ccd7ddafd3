"""Attention of the k queries of a patch to the bytes of that patch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from blt.model.kernels.gpu.tiles import head_axes, head_tile


@triton.jit
def _forward(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    k_row: int,
    v_row: int,
    scale: float,
    SLICES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SLICE_BLOCK: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
) -> None:
    part, head, column, in_heads = head_axes(HEADS, WIDTH, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK)
    patch = tl.program_id(0).to(tl.int64)
    own = (patch * SLICES + part) * (HEADS * WIDTH) + column
    in_patch = in_heads & (part < SLICES)
    query = tl.load(q + own, in_patch, 0.0).to(tl.float32) * scale
    peak = tl.full((1, SLICE_BLOCK, HEAD_BLOCK, 1), float("-inf"), tl.float32)
    total = tl.zeros((1, SLICE_BLOCK, HEAD_BLOCK, 1), tl.float32)
    attended = tl.zeros((1, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK), tl.float32)

    end = tl.load(offsets + patch + 1).to(tl.int64)
    for first in range(tl.load(offsets + patch).to(tl.int64), end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None, None, None]
        in_row = in_heads & (row < end)
        key = tl.load(k + row * k_row + column, in_row, 0.0).to(tl.float32)
        value = tl.load(v + row * v_row + column, in_row, 0.0).to(tl.float32)

        score = tl.sum(query * key, 3, keep_dims=True)  # [bytes, slices, heads, 1]
        score = tl.where(row < end, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 0, keep_dims=True))
        weight, shrink = tl.exp(score - higher), tl.exp(peak - higher)
        attended = attended * shrink + tl.sum(weight * value, 0, keep_dims=True)
        total = total * shrink + tl.sum(weight, 0, keep_dims=True)
        peak = higher

    total = tl.maximum(total, 1.0)  # the highest score has added 1, unless there is no byte
    tl.store(out + own, attended / total, in_patch)
    in_lse = (part < SLICES) & (head < HEADS)
    tl.store(lse + (patch * SLICES + part) * HEADS + head, peak + tl.log(total), in_lse)


def forward(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The queries of each patch attend to its bytes.

    Args:
        q: of patches [P, K, d].
        k, v: of bytes [N, d], of any stride between rows.
        offsets: of the bytes of each patch [P + 1]; a patch without bytes gets zeros.
        heads: parts that the d features are divided into.
        scale: factor of the scores.

    Returns:
        What the patches got [P, K, d], and the log of the sum of exponentiated scores
        [P, K, heads] float32.
    """
    (patches, slices, d), q = q.shape, q.contiguous()
    out = torch.empty_like(q)
    lse = q.new_empty(patches, slices, heads, dtype=torch.float32)
    tile = head_tile(heads, d // heads, slices)
    with torch.cuda.device_of(q):
        _forward[patches, triton.cdiv(heads, tile["HEAD_BLOCK"])](
            q, k, v, offsets, out, lse, k.stride(0), v.stride(0), scale,
            SLICES=slices, HEADS=heads, **tile,
        )  # fmt: skip
    return out, lse


@triton.jit
def _backward(
    grad: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    offsets: tl.tensor,
    dq: tl.tensor,
    dk: tl.tensor,
    dv: tl.tensor,
    k_row: int,
    v_row: int,
    scale: float,
    SLICES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SLICE_BLOCK: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
) -> None:
    part, head, column, in_heads = head_axes(HEADS, WIDTH, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK)
    patch = tl.program_id(0).to(tl.int64)
    own = (patch * SLICES + part) * (HEADS * WIDTH) + column
    in_patch = in_heads & (part < SLICES)
    query = tl.load(q + own, in_patch, 0.0).to(tl.float32) * scale
    g = tl.load(grad + own, in_patch, 0.0).to(tl.float32)
    along = g * tl.load(out + own, in_patch, 0.0).to(tl.float32)
    along = tl.sum(along, 3, keep_dims=True)  # [1, slices, heads, 1]
    in_lse = (part < SLICES) & (head < HEADS)
    log_total = tl.load(lse + (patch * SLICES + part) * HEADS + head, in_lse, 0.0)
    d_query = tl.zeros((1, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK), tl.float32)

    end = tl.load(offsets + patch + 1).to(tl.int64)
    for first in range(tl.load(offsets + patch).to(tl.int64), end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None, None, None]
        in_row = in_heads & (row < end)
        key = tl.load(k + row * k_row + column, in_row, 0.0).to(tl.float32)
        value = tl.load(v + row * v_row + column, in_row, 0.0).to(tl.float32)

        score = tl.sum(query * key, 3, keep_dims=True)  # [bytes, slices, heads, 1]
        weight = tl.exp(tl.where(row < end, score - log_total, float("-inf")))
        d_score = weight * (tl.sum(g * value, 3, keep_dims=True) - along)
        d_query += tl.sum(d_score * key, 0, keep_dims=True)
        d_key = tl.sum(d_score * query, 1, keep_dims=True)
        d_value = tl.sum(weight * g, 1, keep_dims=True)
        tl.store(dk + row * (HEADS * WIDTH) + column, d_key, in_row)
        tl.store(dv + row * (HEADS * WIDTH) + column, d_value, in_row)

    tl.store(dq + own, d_query * scale, in_patch)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    offsets: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`forward`, in one pass over the bytes of each patch.

    Args:
        grad: of what the patches got [P, K, d].
        q, k, v, offsets, heads, scale: as :func:`forward` was given them.
        out, lse: as :func:`forward` returned them.

    Returns:
        dq [P, K, d], dk [N, d] and dv [N, d].
    """
    (patches, slices, d), q, grad = q.shape, q.contiguous(), grad.contiguous()
    dq, dk, dv = torch.empty_like(q), k.new_empty(k.shape), v.new_empty(v.shape)
    tile = head_tile(heads, d // heads, slices)
    with torch.cuda.device_of(q):
        _backward[patches, triton.cdiv(heads, tile["HEAD_BLOCK"])](
            grad, q, k, v, out, lse, offsets, dq, dk, dv, k.stride(0), v.stride(0), scale,
            SLICES=slices, HEADS=heads, **tile,
        )  # fmt: skip
    return dq, dk, dv
