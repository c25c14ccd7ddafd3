"""What lies between a layer's products, a pass each: forward alone, for work without gradients.

``torch.compile`` fuses the same where it is at work; captured steps are not compiled.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDE = 2048  # elements that four warps take


def _warps(block: int) -> int:
    return min(max(1, block * 4 // WIDE), 16)


@triton.jit
def _add_norm(
    x: tl.tensor,
    delta: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    normed: tl.tensor,
    eps: float,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    ADDS: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * D
    column = tl.arange(0, BLOCK)
    here = column < D
    value = tl.load(x + at + column, here, 0.0).to(tl.float32)
    if ADDS:
        value += tl.load(delta + at + column, here, 0.0).to(tl.float32)
        value = value.to(total.dtype.element_ty)
        tl.store(total + at + column, value, here)
        value = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / D + eps)
    tl.store(normed + at + column, value * scale * tl.load(weight + column, here, 0.0), here)


def add_norm(
    x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x + delta [..., d] and its RMSNorm, computed in float32 and returned as ``dtype``.

    Args:
        delta: None: the norm of x alone.
        weight: [d]
    """
    x = x.contiguous()
    d, total, normed = x.shape[-1], x, torch.empty_like(x, dtype=dtype)
    if delta is not None:
        delta = delta.contiguous()
        total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, delta.dtype))
    block = triton.next_power_of_2(d)
    with torch.cuda.device_of(x):
        _add_norm[(x.numel() // d,)](
            x, x if delta is None else delta, weight, total, normed, eps,
            D=d, BLOCK=block, ADDS=delta is not None, num_warps=_warps(block),
        )  # fmt: skip
    return total, normed


@triton.jit
def _rotate(
    qkv: tl.tensor,
    rope: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1)  # queries or keys
    width: tl.constexpr = HEADS * PAIRS
    pair = tl.arange(0, BLOCK)
    here = pair < width
    turn = rope + (row * 2 + which) * (2 * PAIRS) + pair % PAIRS * 2
    cos, sin = tl.load(turn, here, 0.0), tl.load(turn + 1, here, 0.0)
    source = qkv + (row * 3 + which) * (2 * width) + pair * 2
    a = tl.load(source, here, 0.0).to(tl.float32)
    b = tl.load(source + 1, here, 0.0).to(tl.float32)
    out = q + row * (2 * width) + pair * 2
    if which == 1:
        out = k + row * (2 * width) + pair * 2
    tl.store(out, a * cos - b * sin, here)
    tl.store(out + 1, a * sin + b * cos, here)


def rotated_queries_keys(qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [N, 3, H, D], rope [N, 2, 1, D / 2, 2] float32 → q, k rotated and v, each [N, H, D]."""
    (rows, _, heads, width), qkv, rope = qkv.shape, qkv.contiguous(), rope.contiguous()
    q, k = (torch.empty_like(qkv[:, 0]) for _ in range(2))
    block = triton.next_power_of_2(heads * width // 2)
    with torch.cuda.device_of(qkv):
        _rotate[rows, 2](
            qkv, rope, q, k, HEADS=heads, PAIRS=width // 2, BLOCK=block, num_warps=_warps(block)
        )
    return q, k, qkv[:, 2]


@triton.jit
def _swiglu(gate_up: tl.tensor, out: tl.tensor, F: tl.constexpr, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = column < F
    gate = tl.load(gate_up + row * (2 * F) + column, here, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * F) + F + column, here, 0.0).to(tl.float32)
    tl.store(out + row * F + column, gate * tl.sigmoid(gate) * up, here)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of gate_up [N, 2 f]  # [N, f]."""
    gate_up = gate_up.contiguous()
    rows, f = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, f)
    block = min(triton.next_power_of_2(f), WIDE // 2)
    with torch.cuda.device_of(gate_up):
        _swiglu[rows, triton.cdiv(f, block)](
            gate_up, out, F=f, BLOCK=block, num_warps=_warps(block)
        )
    return out
