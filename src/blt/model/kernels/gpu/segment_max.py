"""The highest row of each segment, feature by feature: patches pooled from their bytes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from blt.model.kernels.gpu.tiles import feature_tile

ROWS = 4  # that a program reads at once


@triton.jit
def _forward(
    x: tl.tensor,
    offsets: tl.tensor,
    peak: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    segment = tl.program_id(0).to(tl.int64)
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    highest = tl.full((ROWS, BLOCK), float("-inf"), tl.float32)
    for first in range(start, end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None]
        value = tl.load(x + row * D + column, (row < end) & (column < D), float("-inf"))
        highest = tl.maximum(highest, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    is_nan = tl.max((highest != highest).to(tl.int32), 0, keep_dims=True)  # tl.max ignores nan
    highest = tl.where(is_nan > 0, float("nan"), tl.max(highest, 0, keep_dims=True))
    tl.store(peak + segment * D + column, highest, column < D)


def forward(x: Tensor, offsets: Tensor) -> Tensor:
    """Maximum of each segment's rows.

    Args:
        x: rows [N, d].
        offsets: of segments [S + 1], none of them empty.

    Returns:
        [S, d]; nan where a row has one.
    """
    segments, d, x = len(offsets) - 1, x.shape[1], x.contiguous()
    peak, tile = x.new_empty(segments, d), feature_tile(d)
    with torch.cuda.device_of(x):
        _forward[segments, triton.cdiv(d, tile["BLOCK"])](x, offsets, peak, D=d, ROWS=ROWS, **tile)
    return peak


@triton.jit
def _backward(
    grad: tl.tensor,
    x: tl.tensor,
    peak: tl.tensor,
    offsets: tl.tensor,
    dx: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    segment = tl.program_id(0).to(tl.int64)
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    highest = tl.load(peak + segment * D + column, column < D, 0.0).to(tl.float32)
    sharing = tl.zeros((1, BLOCK), tl.float32)
    for first in range(start, end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None]
        value = tl.load(x + row * D + column, (row < end) & (column < D), float("-inf"))
        reached = (value.to(tl.float32) == highest) & (row < end)
        sharing += tl.sum(reached.to(tl.float32), 0, keep_dims=True)
    share = tl.load(grad + segment * D + column, column < D, 0.0).to(tl.float32)
    share = share / tl.maximum(sharing, 1.0)
    for first in range(start, end, ROWS):
        row = (first + tl.arange(0, ROWS))[:, None]
        here = (row < end) & (column < D)
        value = tl.load(x + row * D + column, here, float("-inf"))
        reached = value.to(tl.float32) == highest
        tl.store(dx + row * D + column, tl.where(reached, share, 0.0), here)


def backward(grad: Tensor, x: Tensor, peak: Tensor, offsets: Tensor) -> Tensor:
    """Gradient of :func:`forward`: rows that share a maximum share its gradient evenly.

    Args:
        grad: of the maxima [S, d].
        x, offsets: as :func:`forward` was given them.
        peak: as :func:`forward` returned it.

    Returns:
        [N, d].
    """
    segments, d, x, grad = len(peak), x.shape[1], x.contiguous(), grad.contiguous()
    dx, tile = torch.empty_like(x), feature_tile(d)
    with torch.cuda.device_of(x):
        _backward[segments, triton.cdiv(d, tile["BLOCK"])](
            grad, x, peak, offsets, dx, D=d, ROWS=ROWS, **tile
        )
    return dx
