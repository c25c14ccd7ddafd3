"""What is optimised by hand, behind the formulas that the model is written in; picked here alone.

A few rows without gradients take the plain formula, and so does ``torch.compile``, which fuses by
itself; many rows on a CPU take fused functions with a backward pass of their own. What neither does
well is an operator, with a form for any device and one in Triton for GPUs. Nothing here knows a
model's parts: every function takes tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blt.model.kernels import bags, operators, plain
from blt.model.kernels.bags import RowGroups, SparseRowSum, group_rows
from blt.model.kernels.causal import attention, packed_attention
from blt.model.kernels.fused import AddNorm, RotatedQueriesKeys, SwiGLUDown
from blt.model.kernels.rows import (
    FF_CHUNK,
    SCORED_ROWS,
    chunks,
    compute_dtype,
    is_plain,
    is_step,
)
from blt.model.kernels.segments import gather

__all__ = [
    "RowGroups",
    "add_norm",
    "attend_to_own_bytes",
    "attend_to_own_patch",
    "attention",
    "compute_dtype",
    "gather",
    "group_rows",
    "packed_attention",
    "rotated",
    "rotated_queries_keys",
    "segment_max",
    "sum_of_rows",
    "swiglu",
]


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + delta [..., d], and its RMSNorm as matrix products want it."""
    dtype = compute_dtype(x)
    if (triton := _in_one_pass(x)) is not None:
        return triton.add_norm(x, delta, weight, eps, dtype)  # type: ignore[no-any-return]
    if is_plain(x):
        return plain.add_norm(x, delta, weight, eps, dtype)
    total, normed = AddNorm.apply(x, delta, weight, eps, dtype)
    return x if delta is None else total, normed


def rotated_queries_keys(qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [N, 3, H, D], rope [N, 2, 1, D / 2, 2] → q, k rotated and v, each [N, H, D]."""
    if (triton := _in_one_pass(qkv)) is not None:
        return triton.rotated_queries_keys(qkv, rope)  # type: ignore[no-any-return]
    take = plain.rotated_queries_keys if is_plain(qkv) else RotatedQueriesKeys.apply
    return take(qkv, rope)  # type: ignore[no-any-return]


def rotated(x: Tensor, rope: Tensor) -> Tensor:
    """x [N, H, D] rotated by rope [N, 1, D / 2, 2]  # [N, H, D]; where queries and keys differ in
    more than their rotations."""
    return plain.rotated(x, rope).to(x.dtype)


def swiglu(x: Tensor, gate_up: torch.nn.Module, down: torch.nn.Module) -> Tensor:
    """(silu(gate) * up) @ down, where gate and up are products of x [N, d]  # [N, d]."""
    if (triton := _in_one_pass(x)) is not None:
        return down(triton.swiglu(gate_up(x)))  # type: ignore[no-any-return]
    if is_plain(x):
        return down(plain.swiglu(gate_up(x)))  # type: ignore[no-any-return]
    if torch.is_grad_enabled():
        if not isinstance(down, torch.nn.Linear):  # an adapter around one: more than its weight
            return down(plain.swiglu(gate_up(x)))  # type: ignore[no-any-return]
        return SwiGLUDown.apply(gate_up(x), down.weight)  # type: ignore[no-any-return]
    # Without gradients the widest activation need not exist for all bytes at once.
    wide = map(gate_up, x.split(SCORED_ROWS))
    parts = [down(plain.swiglu(part[rows])) for part in wide for rows in chunks(part, FF_CHUNK)]
    return torch.cat(parts)


def _in_one_pass(x: Tensor) -> Any:
    """The fused kernels, for work without gradients on a GPU that is not compiled; or None."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return None
    return operators.in_triton(x, "fused")


def attend_to_own_bytes(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> Tensor:
    """q [P, k, d] of patches, k and v [N, d] of bytes, each of one patch → [P, k, d]."""
    if len(q) == 1 and is_step(k):
        return plain.attend_to_all_bytes(q, k, v, heads)
    return operators.attend_to_own_bytes(q, k, v, patch_ids, heads, scale)[0]


def attend_to_own_patch(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> Tensor:
    """q [N, d] of bytes, k and v [P, k, d] of patches, one of which each byte sees → [N, d]."""
    if is_step(q) and not operators.usable(q.device):
        return plain.attend_to_own_patch(q, k, v, patch_ids, heads, scale)
    return operators.attend_to_own_patch(q, k, v, patch_ids, heads, scale)[0]


def segment_max(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Maximum per segment: x [N, d], sorted ids [N] → [segments, d]; no segment is empty."""
    if is_step(x) and segments == 1:
        return x.amax(0, keepdim=True)
    return operators.segment_max(x, ids, segments)


def sum_of_rows(
    table: Tensor, rows: Tensor, sparse_gradient: bool, groups: RowGroups | None = None
) -> Tensor:
    """table [R, d], rows [N, C] → the sum of each byte's C rows  # [N, d].

    Args:
        groups: of the rows, for the sparse gradient; None: made when it is asked for.
    """
    if sparse_gradient and torch.is_grad_enabled():
        return SparseRowSum.apply(table, rows, groups)  # type: ignore[no-any-return]
    return bags.sum_of_rows(table, rows)
