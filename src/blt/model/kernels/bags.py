"""Sums of table rows, as of hashed n-grams, with a sparse gradient for the table."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels.operators import in_triton


class RowGroups(NamedTuple):
    """Which bytes use a row of a table: what the gradient of the rows is summed by.

    How many rows there are is read from the device, so a GPU's are grouped ahead of the step.
    """

    touched: Tensor  # [U] rows that are used, ascending
    order: Tensor  # [N * C] uses, row by row; use u is of byte u // C
    first: Tensor  # [U + 1] where each row's uses begin, and N * C


def group_rows(rows: Tensor) -> RowGroups:
    """Rows [N, C] that N bytes use, grouped."""
    flat, order = rows.flatten().sort(stable=True)
    touched, counts = torch.unique_consecutive(flat, return_counts=True)
    return RowGroups(touched, order, F.pad(counts.cumsum(0), (1, 0)))


class SparseRowSum(torch.autograd.Function):
    """Sum of table rows per byte, with a coalesced sparse gradient for the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, groups: RowGroups | None) -> Tensor:
        ctx.save_for_backward(rows, *(groups or ()))
        ctx.shape = table.shape
        return sum_of_rows(table, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, *groups = ctx.saved_tensors  # [N, C]
        touched, order, first = groups or group_rows(rows)
        # The gradient of a row is the sum of those of the bytes that used it: again a bag.
        values = _sums_of_runs(grad, order, first, rows.shape[1])
        sparse = torch.sparse_coo_tensor(
            touched[None], values, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None, None


def merge_rows(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [S] of several parts, end to end, and values [S, d], with those of each row added up.

    How many rows there are is not asked for, so that nobody waits for a device.

    Returns:
        rows [S], ascending, as many as all parts have together: behind the last one it is repeated,
        with values of zero; and values [S, d].
    """
    ascending, order = rows.sort(stable=True)
    number = (ascending.diff(prepend=ascending[:1]) > 0).cumsum(0)  # [S] of the rows, from 0
    size = len(ascending)
    wanted = torch.arange(size + 1, dtype=torch.int64, device=ascending.device)
    first = torch.searchsorted(number, wanted)  # [S + 1] size, where there are no more
    sums = _sums_of_runs(values, order, first, 1)
    return ascending[first[:-1].clamp_max(size - 1)], sums


def _sums_of_runs(grad: Tensor, order: Tensor, first: Tensor, count: int) -> Tensor:
    """Rows of ``grad`` [N, d] added up by runs of uses  # [U, d].

    Args:
        order: [N * count] use u is of row u // count.
        first: [U + 1] where each run begins in ``order``, and N * count.
    """
    gpu = in_triton(grad, "row_sums")
    if gpu is None:
        return F.embedding_bag(order // count, grad, first[:-1], mode="sum")
    return gpu.backward(grad, order, first, count)  # type: ignore[no-any-return]


def sum_of_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table [R, d], rows [N, C] → the sum of each byte's C rows  # [N, d]."""
    gpu = in_triton(table, "row_sums")
    if gpu is None or (torch.is_grad_enabled() and table.requires_grad):
        return F.embedding_bag(rows, table, mode="sum")
    return gpu.forward(table, rows, table.dtype)  # type: ignore[no-any-return]
