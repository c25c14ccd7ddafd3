"""Sums of table rows, as of a byte's hashed n-grams, and the gradient of the rows in use."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from blt.model.kernels.gpu.tiles import feature_tile

ROWS = 4  # that a program reads at once
CHUNK = 64  # uses of one row that are added up apart, so that a frequent row is no bottleneck


@triton.jit
def _forward(
    table: tl.tensor,
    rows: tl.tensor,
    out: tl.tensor,
    D: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    item = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(COUNT):
        row = tl.load(rows + item * COUNT + i)
        total += tl.load(table + row * D + column, column < D, 0.0).to(tl.float32)
    tl.store(out + item * D + column, total, column < D)


def forward(table: Tensor, rows: Tensor, out_dtype: torch.dtype) -> Tensor:
    """Sum of each byte's rows.

    Args:
        table: [R, d].
        rows: of the table, for each byte [N, C] int64.
        out_dtype: of the result; the sum itself is in float32.

    Returns:
        [N, d].
    """
    (items, count), d, rows = rows.shape, table.shape[1], rows.contiguous()
    out, tile = table.new_empty(items, d, dtype=out_dtype), feature_tile(d)
    with torch.cuda.device_of(table):
        _forward[items, triton.cdiv(d, tile["BLOCK"])](
            table.contiguous(), rows, out, D=d, COUNT=count, **tile
        )
    return out


@triton.jit
def _sum_of_uses(
    grad: tl.tensor,
    order: tl.tensor,
    begin: int,
    end: int,
    column: tl.tensor,
    D: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Gradients of the bytes behind uses ``begin`` to ``end``, added up  # [1, BLOCK]."""
    total = tl.zeros((1, BLOCK), tl.float32)
    for first in range(begin, end, ROWS):
        use = (first + tl.arange(0, ROWS))[:, None]
        item = tl.load(order + use, use < end, 0) // COUNT
        here = (use < end) & (column < D)
        rows = tl.load(grad + item * D + column, here, 0.0).to(tl.float32)
        total += tl.sum(rows, 0, keep_dims=True)
    return total


@triton.jit
def _whole_chunks(
    grad: tl.tensor,
    order: tl.tensor,
    first: tl.tensor,
    chunks: tl.tensor,
    runs: int,
    D: tl.constexpr,
    COUNT: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Sums of the chunks that lie inside one run; of no others."""
    chunk = tl.program_id(0).to(tl.int64)
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    begin = chunk * CHUNK
    low, high = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32) + runs
    while high - low > 1:  # first[low] <= begin < first[high]
        middle = (low + high) // 2
        if tl.load(first + middle) <= begin:
            low = middle
        else:
            high = middle
    if tl.load(first + high) >= begin + CHUNK:
        total = _sum_of_uses(grad, order, begin, begin + CHUNK, column, D, COUNT, ROWS, BLOCK)
        tl.store(chunks + chunk * D + column, total, column < D)


@triton.jit
def _backward(
    grad: tl.tensor,
    order: tl.tensor,
    first: tl.tensor,
    chunks: tl.tensor,
    values: tl.tensor,
    D: tl.constexpr,
    COUNT: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    run = tl.program_id(0).to(tl.int64)
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    begin, end = tl.load(first + run), tl.load(first + run + 1)
    first_chunk, end_chunk = (begin + CHUNK - 1) // CHUNK, end // CHUNK
    is_long = end_chunk > first_chunk
    before = tl.where(is_long, first_chunk * CHUNK, end)
    after = tl.where(is_long, end_chunk * CHUNK, end)
    total = _sum_of_uses(grad, order, begin, before, column, D, COUNT, ROWS, BLOCK)
    for lead in range(first_chunk, end_chunk, ROWS):
        chunk = (lead + tl.arange(0, ROWS))[:, None]
        here = (chunk < end_chunk) & (column < D)
        total += tl.sum(tl.load(chunks + chunk * D + column, here, 0.0), 0, keep_dims=True)
    total += _sum_of_uses(grad, order, after, end, column, D, COUNT, ROWS, BLOCK)
    tl.store(values + run * D + column, total, column < D)


def backward(grad: Tensor, order: Tensor, first: Tensor, count: int) -> Tensor:
    """Gradient of each row in use: the sum of those of the bytes that use it.

    Args:
        grad: of the bytes' sums [N, d].
        order: uses (byte * count + which of its rows), sorted by the row that they use
            [N * count] int64.
        first: where each row's run of uses begins in ``order``, and N * count at the end
            [U + 1] int64; an empty run has a gradient of zero.
        count: rows of each byte.

    Returns:
        [U, d] float32.
    """
    (items, d), runs, grad = grad.shape, len(first) - 1, grad.contiguous()
    values = grad.new_empty(runs, d, dtype=torch.float32)
    chunks = grad.new_empty(items * count // CHUNK, d, dtype=torch.float32)
    tile = feature_tile(d)
    sizes = {"D": d, "COUNT": count, "CHUNK": CHUNK, "ROWS": ROWS, **tile}
    parts = triton.cdiv(d, tile["BLOCK"])
    with torch.cuda.device_of(grad):
        if len(chunks):
            _whole_chunks[len(chunks), parts](grad, order, first, chunks, runs, **sizes)
        _backward[runs, parts](grad, order, first, chunks, values, **sizes)
    return values
