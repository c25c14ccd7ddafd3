"""What is optimised by hand, behind the formulas that the model is written in; picked here alone.

A few rows without gradients take the plain formula, and so does ``torch.compile``, which fuses by
itself; many rows on a CPU take fused functions with a backward pass of their own. Nothing here
knows a model's parts: every function takes tensors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels import plain
from blt.model.kernels.bags import SparseRowSum
from blt.model.kernels.causal import attention
from blt.model.kernels.crossing import AttendToOwnBytes, AttendToOwnPatch
from blt.model.kernels.fused import AddNorm, RotatedQueriesKeys, SwiGLUDown
from blt.model.kernels.rows import (
    FF_CHUNK,
    SCORED_ROWS,
    chunks,
    compute_dtype,
    is_plain,
    is_step,
)
from blt.model.kernels.segments import gather, segment_max

__all__ = [
    "add_norm",
    "attend_to_own_bytes",
    "attend_to_own_patch",
    "attention",
    "gather",
    "rotated_queries_keys",
    "segment_max",
    "sum_of_rows",
    "swiglu",
]


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + delta [..., d], and its RMSNorm as matrix products want it."""
    dtype = compute_dtype(x)
    if is_plain(x):
        return plain.add_norm(x, delta, weight, eps, dtype)
    total, normed = AddNorm.apply(x, delta, weight, eps, dtype)
    return x if delta is None else total, normed


def rotated_queries_keys(qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [N, 3, H, D], rope [N, 2, 1, D / 2] complex → q, k rotated and v, each [N, H, D]."""
    take = plain.rotated_queries_keys if is_plain(qkv) else RotatedQueriesKeys.apply
    return take(qkv, rope)  # type: ignore[no-any-return]


def swiglu(x: Tensor, gate_up: torch.nn.Module, down: torch.nn.Module) -> Tensor:
    """(silu(gate) * up) @ down, where gate and up are products of x [N, d]  # [N, d]."""
    if is_plain(x):
        return down(plain.swiglu(gate_up(x)))  # type: ignore[no-any-return]
    if torch.is_grad_enabled():
        return SwiGLUDown.apply(gate_up(x), down.weight)  # type: ignore[no-any-return]
    # Without gradients the widest activation need not exist for all bytes at once.
    wide = map(gate_up, x.split(SCORED_ROWS))
    parts = [down(plain.swiglu(part[rows])) for part in wide for rows in chunks(part, FF_CHUNK)]
    return torch.cat(parts)


def attend_to_own_bytes(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> Tensor:
    """q [P, k, d] of patches, k and v [N, d] of bytes, each of one patch → [P, k, d]."""
    if len(q) == 1 and is_step(k):
        return plain.attend_to_all_bytes(q, k, v, heads)
    return AttendToOwnBytes.apply(q, k, v, patch_ids, heads, scale)  # type: ignore[no-any-return]


def attend_to_own_patch(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> Tensor:
    """q [N, d] of bytes, k and v [P, k, d] of patches, one of which each byte sees → [N, d]."""
    if is_step(q):
        return plain.attend_to_own_patch(q, k, v, patch_ids, heads, scale)
    return AttendToOwnPatch.apply(q, k, v, patch_ids, heads, scale)  # type: ignore[no-any-return]


def sum_of_rows(table: Tensor, rows: Tensor, sparse_gradient: bool) -> Tensor:
    """table [R, d], rows [N, C] → the sum of each byte's C rows  # [N, d]."""
    if sparse_gradient:
        return SparseRowSum.apply(table, rows)  # type: ignore[no-any-return]
    return F.embedding_bag(rows, table, mode="sum")
