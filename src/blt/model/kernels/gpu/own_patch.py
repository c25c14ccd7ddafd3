"""Attention of each byte to the k slices of the one patch that it sees."""

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
    patch_ids: tl.tensor,
    out: tl.tensor,
    weights: tl.tensor,
    rows: int,
    k_patch: int,
    k_slice: int,
    v_patch: int,
    v_slice: int,
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
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None, None, None]
    in_row = in_heads & (row < rows)
    in_patch = in_row & (part < SLICES)
    patch = tl.load(patch_ids + row, row < rows, 0)
    query = tl.load(q + row * (HEADS * WIDTH) + column, in_row, 0.0).to(tl.float32)
    key = tl.load(k + patch * k_patch + part * k_slice + column, in_patch, 0.0).to(tl.float32)
    value = tl.load(v + patch * v_patch + part * v_slice + column, in_patch, 0.0).to(tl.float32)

    score = tl.sum(query * key, 3, keep_dims=True) * scale  # [bytes, slices, heads, 1]
    score = tl.where(part < SLICES, score, float("-inf"))
    weight = tl.exp(score - tl.max(score, 1, keep_dims=True))
    weight = weight / tl.sum(weight, 1, keep_dims=True)
    attended = tl.sum(weight * value, 1, keep_dims=True)

    tl.store(out + row * (HEADS * WIDTH) + column, attended, in_row)
    in_weights = (row < rows) & (part < SLICES) & (head < HEADS)
    tl.store(weights + (row * SLICES + part) * HEADS + head, weight, in_weights)


def forward(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Each byte attends to the slices of its patch.

    Args:
        q: of bytes [N, d].
        k, v: of patches [P, K, d], of any strides but the last.
        patch_ids: patch that each byte sees [N] int64.
        heads: parts that the d features are divided into.
        scale: factor of the scores.

    Returns:
        What the bytes got [N, d], and the weights [N, K, heads] float32.
    """
    (rows, d), slices, q = q.shape, k.shape[1], q.contiguous()
    out = torch.empty_like(q)
    weights = q.new_empty(rows, slices, heads, dtype=torch.float32)
    tile = head_tile(heads, d // heads, slices)
    grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(heads, tile["HEAD_BLOCK"]))
    strides = (*k.stride()[:2], *v.stride()[:2])
    with torch.cuda.device_of(q):
        _forward[grid](
            q, k, v, patch_ids, out, weights, rows, *strides, scale,
            SLICES=slices, HEADS=heads, **tile,
        )  # fmt: skip
    return out, weights


@triton.jit
def _backward(
    grad: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    offsets: tl.tensor,
    weights: tl.tensor,
    dq: tl.tensor,
    dk: tl.tensor,
    dv: tl.tensor,
    k_patch: int,
    k_slice: int,
    v_patch: int,
    v_slice: int,
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
    in_patch = in_heads & (part < SLICES)
    key = tl.load(k + patch * k_patch + part * k_slice + column, in_patch, 0.0).to(tl.float32)
    value = tl.load(v + patch * v_patch + part * v_slice + column, in_patch, 0.0).to(tl.float32)
    d_key = tl.zeros((1, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK), tl.float32)
    d_value = tl.zeros((1, SLICE_BLOCK, HEAD_BLOCK, WIDTH_BLOCK), tl.float32)

    end = tl.load(offsets + patch + 1).to(tl.int64)
    for first in range(tl.load(offsets + patch).to(tl.int64), end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None, None, None]
        in_row = in_heads & (row < end)
        in_weights = (row < end) & (part < SLICES) & (head < HEADS)
        g = tl.load(grad + row * (HEADS * WIDTH) + column, in_row, 0.0).to(tl.float32)
        query = tl.load(q + row * (HEADS * WIDTH) + column, in_row, 0.0).to(tl.float32)
        weight = tl.load(weights + (row * SLICES + part) * HEADS + head, in_weights, 0.0)

        d_weight = tl.sum(g * value, 3, keep_dims=True)  # [bytes, slices, heads, 1]
        d_score = weight * (d_weight - tl.sum(d_weight * weight, 1, keep_dims=True)) * scale
        d_query = tl.sum(d_score * key, 1, keep_dims=True)
        d_key += tl.sum(d_score * query, 0, keep_dims=True)
        d_value += tl.sum(weight * g, 0, keep_dims=True)
        tl.store(dq + row * (HEADS * WIDTH) + column, d_query, in_row)

    own = (patch * SLICES + part) * (HEADS * WIDTH) + column
    tl.store(dk + own, d_key, in_patch)
    tl.store(dv + own, d_value, in_patch)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    weights: Tensor,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`forward`, in one pass over the bytes of each patch.

    Args:
        grad: of what the bytes got [N, d].
        q, k, v, heads, scale: as :func:`forward` was given them.
        offsets: of the bytes that see each patch [P + 1]; none may, and its gradients are zero.
        weights: as :func:`forward` returned them.

    Returns:
        dq [N, d], dk [P, K, d] and dv [P, K, d].
    """
    (patches, slices, d), q, grad = k.shape, q.contiguous(), grad.contiguous()
    dq, dk, dv = torch.empty_like(q), k.new_empty(k.shape), v.new_empty(v.shape)
    tile = head_tile(heads, d // heads, slices)
    strides = (*k.stride()[:2], *v.stride()[:2])
    with torch.cuda.device_of(q):
        _backward[patches, triton.cdiv(heads, tile["HEAD_BLOCK"])](
            grad, q, k, v, offsets, weights, dq, dk, dv, *strides, scale,
            SLICES=slices, HEADS=heads, **tile,
        )  # fmt: skip
    return dq, dk, dv
