"""The formulas, in as few operations as PyTorch has for them: what steps of a few rows take.

``torch.compile`` fuses these by itself; what is faster for many rows on a CPU is in ``fused``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def add_norm(
    x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x + delta [..., d] and its RMSNorm, computed in float32 and returned as ``dtype``."""
    x = x if delta is None else x + delta
    wide = x if x.dtype is torch.float64 else x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return x, (wide * scale).mul_(weight).to(dtype)


def rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate pairs of features: x [..., D], rope [..., D / 2, 2] → [..., D] float32."""
    if torch.compiler.is_compiling():  # it cannot fuse complex numbers
        (a, b), (cos, sin) = (y.unbind(-1) for y in (_pairs(x), rope))
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    pairs = torch.view_as_complex(_pairs(x))
    return torch.view_as_real(pairs.mul(torch.view_as_complex(rope))).flatten(-2)


def _pairs(x: Tensor) -> Tensor:
    return x.float().unflatten(-1, (-1, 2))


def rotated_queries_keys(qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [N, 3, H, D], rope [N, 2, 1, D / 2, 2] → q, k rotated and v, each [N, H, D]."""
    q, k = rotated(qkv[:, :2], rope).to(qkv.dtype).unbind(1)
    return q, k, qkv[:, 2]


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of gate_up [N, 2 f]  # [N, f]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate.contiguous()).mul_(up)  # silu is twice as fast on contiguous memory


def attend_to_all_bytes(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """q [1, k, d] of the only patch, k and v [N, d] of all bytes → [1, k, d]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(-3, -2) for x in (q[0], k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)[None]


def attend_to_own_patch(
    q: Tensor, k: Tensor, v: Tensor, patch_ids: Tensor, heads: int, scale: float
) -> Tensor:
    """q [N, d] of bytes, k and v [P, k, d] of patches, one of which each byte sees → [N, d]."""
    k, v = (x[patch_ids].unflatten(-1, (heads, -1)) for x in (k, v))  # [N, k, H, D]
    scores = (q.unflatten(-1, (1, heads, -1)) * k).sum(-1, keepdim=True)
    weights = torch.softmax(scores.mul_(scale), 1)  # [N, k, H, 1]
    return (weights * v).sum(1).flatten(1)
