"""Sums of table rows, as of hashed n-grams, with a sparse gradient for the table."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class SparseRowSum(torch.autograd.Function):
    """Sum of table rows per byte, with a coalesced sparse gradient for the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return F.embedding_bag(rows, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rows,) = ctx.saved_tensors  # [N, C]
        flat, order = rows.flatten().sort()
        touched, counts = torch.unique_consecutive(flat, return_counts=True)
        first = counts.cumsum(0) - counts
        # The gradient of a row is the sum of those of the bytes that used it: again a bag.
        values = F.embedding_bag(order // rows.shape[1], grad, first, mode="sum")
        sparse = torch.sparse_coo_tensor(
            touched[None], values, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None
