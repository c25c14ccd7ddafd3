"""The transformer layer that every part of the model is built from (paper §3, Llama style)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.attention import attention
from blt.model.packing import Spans

FF_CHUNK = 16384  # bytes
INIT_ROWS = 16384


def init_linear(weight: Tensor, fan_in: int) -> None:
    """Truncated normal, std fan_in**-0.5, cut at 3 std."""
    std = fan_in**-0.5
    for rows in weight.split(INIT_ROWS):  # the temporaries of a whole hash table would be huge
        nn.init.trunc_normal_(rows, std=std, a=-3 * std, b=3 * std)


class Linear(nn.Linear):
    """Without bias, with the model's initialisation."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)

    def reset_parameters(self) -> None:
        init_linear(self.weight, self.in_features)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products take: autocast's, or else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _RMSNorm(torch.autograd.Function):
    """PyTorch's own has no fused backward on CPUs: fwd + bwd 5.8 ms at [8192, 256], here 1.2.

    Keeps its output, which the product after it keeps anyway, instead of its wider input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        exact = x if x.dtype == torch.float64 else x.float()
        mean_square = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square() / x.shape[-1]
        scale = (mean_square + eps).rsqrt()
        out = (exact * scale).mul_(weight).to(out_dtype)
        ctx.save_for_backward(out, weight, scale)
        ctx.in_dtype = x.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        out, weight, scale = ctx.saved_tensors
        grad, out = grad.to(scale.dtype), out.to(scale.dtype)
        # A weight of exactly 0 hides what it scaled: its own gradient is taken as 0.
        inverse = torch.where(weight == 0, 0.0, 1.0 / weight)
        along = grad * out
        d_weight = along.flatten(0, -2).sum(0) * inverse
        dx = grad * weight - (out * inverse) * along.mean(-1, keepdim=True)
        return dx.mul_(scale).to(ctx.in_dtype), d_weight.to(weight.dtype), None, None


class RMSNorm(nn.Module):
    """Over the full width, computed in float32, returned as matrix products want it."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., d]
        return _RMSNorm.apply(x, self.weight, self.eps, compute_dtype(x))  # type: ignore[no-any-return]


def rope_rotations(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Rotations e^{i·position·ω} of interleaved pairs of queries and keys (RoPE).

    Those of queries carry the attention's scale head_dim**-0.5.

    Args:
        positions: [N] index in the document.

    Returns:
        [N, 2, 1, head_dim / 2] complex64: for queries, for keys.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None].float() * (1.0 / theta ** (pairs / head_dim))
    rope = torch.polar(torch.ones_like(angles), angles)
    return torch.stack((rope * head_dim**-0.5, rope), dim=1)[:, :, None]


def _rotated(x: Tensor, rope: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate pairs of features: x [..., D], rope [..., D / 2] complex → [..., D]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope).flatten(-2).to(dtype)


class _RotatedQueriesKeys(torch.autograd.Function):
    """qkv [N, 3, H, D] → q, k rotated and v, each [N, H, D]; one gradient buffer for the three."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(rope)
        q, k = _rotated(qkv[:, :2], rope, qkv.dtype).unbind(1)
        return q, k, qkv[:, 2].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rope,) = ctx.saved_tensors
        dq, dk, dv = grads
        out = dv.new_empty(len(dv), 3, *dv.shape[1:])
        out[:, 0] = _rotated(dq, rope[:, 0].conj(), dq.dtype)
        out[:, 1] = _rotated(dk, rope[:, 1].conj(), dk.dtype)
        out[:, 2] = dv
        return out, None


class SelfAttention(nn.Module):
    """Causal multi-head self-attention with RoPE; ``window`` None means all of the past."""

    def __init__(self, dim: int, heads: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)

    def forward(self, x: Tensor, rope: Tensor, spans: Spans) -> Tensor:  # x [N, d]
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = _RotatedQueriesKeys.apply(qkv, rope)  # [N, H, D] each, q scaled
        return self.out(attention(q, k, v, spans.offsets, self.window).flatten(1))


class _SwiGLUDown(torch.autograd.Function):
    """(silu(gate) * up) @ down.T of gate_up [N, 2 f]; computes the product again in backward."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, down)
        gate, up = gate_up.chunk(2, dim=-1)
        # silu is twice as fast on contiguous memory
        return F.linear(F.silu(gate.contiguous()).mul_(up), down.to(gate_up.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate_up, down = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        gate = gate.contiguous()
        gated = F.silu(gate)
        d_down = grad.t() @ (gated * up)
        d_product = grad @ down.to(grad.dtype)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(gated, d_product, out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(d_product.mul_(up), gate))
        return d_gate_up, d_down.to(down.dtype)


class SwiGLU(nn.Module):
    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * ff_dim)
        self.down = Linear(ff_dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [N, d]
        if torch.is_grad_enabled() or len(x) <= FF_CHUNK:
            return self._apply_to(x)
        # Without gradients the widest activation need not exist for all bytes at once.
        return torch.cat([self._apply_to(part) for part in x.split(FF_CHUNK)])

    def _apply_to(self, x: Tensor) -> Tensor:
        return _SwiGLUDown.apply(self.gate_up(x), self.down.weight)  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Pre-norm self-attention, then pre-norm SwiGLU."""

    def __init__(
        self, dim: int, heads: int, ff_dim: int, eps: float, window: int | None = None
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, eps)
        self.attention = SelfAttention(dim, heads, window)
        self.ff_norm = RMSNorm(dim, eps)
        self.ff = SwiGLU(dim, ff_dim)

    def forward(self, x: Tensor, rope: Tensor, spans: Spans) -> Tensor:  # x [N, d]
        x = x + self.attention(self.attention_norm(x), rope, spans)
        return x + self.ff(self.ff_norm(x))


class Transformer(nn.Module):
    """A stack of layers over a flat packed stream, with one table of rotations for all."""

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        ff_dim: int,
        *,
        rope_theta: float,
        eps: float,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = dim // heads, rope_theta
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, ff_dim, eps, window) for _ in range(layers)
        )

    def rope(self, spans: Spans) -> Tensor:
        return rope_rotations(spans.positions, self.head_dim, self.rope_theta)

    def forward(self, x: Tensor, spans: Spans) -> Tensor:  # x [N, d]
        rope = self.rope(spans)
        for layer in self.layers:
            x = layer(x, rope, spans)
        return x
