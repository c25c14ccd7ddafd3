"""The transformer layer that every part of the model is built from (paper §3, Llama style)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.attention import attention
from blt.model.config import RopeScaling
from blt.model.packing import Spans

SCORED_ROWS = 16384  # of one feed-forward without gradients
FEW_ROWS = 64  # below this, work without gradients is done in as few operations as possible
INIT_ROWS = 16384  # drawn at once
CHUNK = 2**19  # elements: 2 MB of float32, about a core's cache
FF_CHUNK = 2**21  # more, as matrix products want many rows


def init_linear(weight: Tensor, fan_in: int) -> None:
    """Truncated normal, std fan_in**-0.5, cut at 3 std."""
    if weight.is_meta:  # a shape, perhaps an absurd one that a config asks for
        return
    std = fan_in**-0.5
    for rows in weight.split(INIT_ROWS):  # the temporaries of a whole hash table would be huge
        nn.init.trunc_normal_(rows, std=std, a=-3 * std, b=3 * std)


class Linear(nn.Linear):
    """Without bias, with the model's initialisation."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False, dtype=torch.float32)

    def reset_parameters(self) -> None:
        init_linear(self.weight, self.in_features)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products take: autocast's, or else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def is_step(x: Tensor) -> bool:
    """A few rows without gradients: generation, where each operation costs more than its work."""
    return len(x) <= FEW_ROWS and not torch.is_grad_enabled()


def is_plain(x: Tensor) -> bool:
    """Written as plain operations: for steps, and for torch.compile, which fuses by itself."""
    return torch.compiler.is_compiling() or is_step(x)


def chunks(x: Tensor, elements: int = CHUNK) -> Iterator[slice]:
    """Runs of rows whose temporaries stay in a CPU's cache; elsewhere, all rows at once."""
    if x.device.type != "cpu":
        yield slice(None)
        return
    rows = max(1, elements * len(x) // max(1, x.numel()))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


class _AddNorm(torch.autograd.Function):
    """x + delta and its RMSNorm; without delta, the norm alone.

    PyTorch has no fused backward on CPUs: sum and norm took 8.0 ms at [8192, 256], here 4.9.
    Keeps its output, which the product after it keeps anyway, instead of its wider input.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor]:
        total = x
        if delta is not None:
            total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, delta.dtype))
        exact = torch.promote_types(total.dtype, torch.float32)
        out, scale = torch.empty_like(x, dtype=dtype), x.new_empty(*x.shape[:-1], 1, dtype=exact)
        for rows in chunks(x):
            if delta is not None:
                torch.add(x[rows], delta[rows], out=total[rows])
            wide = total[rows].to(exact)
            norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            torch.rsqrt(norm.square_().div_(x.shape[-1]).add_(eps), out=scale[rows])
            out[rows] = (wide * scale[rows]).mul_(weight)
        ctx.save_for_backward(out, weight, scale)
        ctx.dtypes = (x.dtype, total.dtype, None if delta is None else delta.dtype)
        ctx.set_materialize_grads(False)
        return (None if delta is None else total), out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, d_total: Tensor | None, d_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        out, weight, scale = ctx.saved_tensors
        x_dtype, total_dtype, delta_dtype = ctx.dtypes
        wide_weight = weight.to(scale.dtype)
        # A weight of exactly 0 hides what it scaled: its own gradient is taken as 0.
        inverse = torch.where(wide_weight == 0, 0.0, 1.0 / wide_weight)
        d_weight, d_x = torch.zeros_like(wide_weight), torch.empty_like(out, dtype=total_dtype)
        d_delta = None if delta_dtype is None else torch.empty_like(out, dtype=delta_dtype)
        for rows in chunks(out):
            grad, wide = d_out[rows].to(scale.dtype), out[rows].to(scale.dtype)
            along = grad * wide
            d_weight += along.flatten(0, -2).sum(0)
            wide.mul_(inverse).mul_(along.mean(-1, keepdim=True))
            grad = grad.mul(wide_weight).sub_(wide).mul_(scale[rows])
            d_x[rows] = grad if d_total is None else grad.add_(d_total[rows])
            if d_delta is not None:
                d_delta[rows] = d_x[rows]
        return d_x.to(x_dtype), d_delta, d_weight.mul_(inverse).to(weight.dtype), None, None


class RMSNorm(nn.Module):
    """Over the full width, computed in float32, returned as matrix products want it."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:  # [..., d]
        return self.add(x, None)[1]

    def add(self, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns x + delta, and its norm; in one go, since both read all of x."""
        if is_plain(x):
            return self._add_plain(x, delta)
        total, normed = _AddNorm.apply(x, delta, self.weight, self.eps, compute_dtype(x))
        return x if delta is None else total, normed

    def _add_plain(self, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x if delta is None else x + delta
        wide = x if x.dtype is torch.float64 else x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return x, (wide * scale).mul_(self.weight).to(compute_dtype(x))


def rope_rotations(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Rotations e^{i·position·ω} of interleaved pairs of queries and keys (RoPE).

    Those of queries carry the attention's scale head_dim**-0.5.

    Args:
        positions: [N] index in the document.
        frequencies: [head_dim / 2] ω, radians per position.

    Returns:
        [N, 2, 1, head_dim / 2] complex64: for queries, for keys.
    """
    angles = positions[:, None].float() * frequencies
    rope = torch.polar(torch.ones_like(angles), angles)
    return torch.stack((rope * (2 * len(frequencies)) ** -0.5, rope), dim=1)[:, :, None]


def rope_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, device: torch.device
) -> Tensor:
    """[head_dim / 2] radians per position of each pair of features."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / theta ** (pairs / head_dim)
    if scaling is None:
        return frequencies
    turns = frequencies * (scaling.original_max_position_embeddings / (2 * math.pi))
    width = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / width).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def _rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate pairs of features: x [..., D], rope [..., D / 2] complex → [..., D] float32."""
    if torch.compiler.is_compiling():  # it cannot fuse complex numbers
        (a, b), (cos, sin) = (y.unbind(-1) for y in (_pairs(x), torch.view_as_real(rope)))
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    pairs = torch.view_as_complex(_pairs(x))
    return torch.view_as_real(pairs.mul(rope)).flatten(-2)


def _pairs(x: Tensor) -> Tensor:
    return x.float().unflatten(-1, (-1, 2))


class _RotatedQueriesKeys(torch.autograd.Function):
    """qkv [N, 3, H, D] → q, k rotated and v, each [N, H, D]; one gradient buffer for the three."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(rope)
        q, k, v = (torch.empty_like(qkv[:, 0]) for _ in range(3))
        for rows in chunks(qkv):
            q[rows] = _rotated(qkv[rows, 0], rope[rows, 0])
            k[rows] = _rotated(qkv[rows, 1], rope[rows, 1])
            v[rows] = qkv[rows, 2]
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rope,) = ctx.saved_tensors
        dq, dk, dv = grads
        out = dv.new_empty(len(dv), 3, *dv.shape[1:])
        for rows in chunks(out):
            out[rows, 0] = _rotated(dq[rows], rope[rows, 0].conj())
            out[rows, 1] = _rotated(dk[rows], rope[rows, 1].conj())
            out[rows, 2] = dv[rows]
        return out, None


class KeyValueCache(Protocol):
    """Where a layer keeps the keys and values of what it has read, for generation."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v; q attends to them and to what was kept before  # [N, H, D] all."""


class SelfAttention(nn.Module):
    """Causal multi-head self-attention with RoPE; ``window`` None means all of the past."""

    def __init__(self, dim: int, heads: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.window, self.attend = heads, window, attention
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)

    def forward(
        self, x: Tensor, rope: Tensor, spans: Spans, cache: KeyValueCache | None = None
    ) -> Tensor:  # x [N, d]
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        if is_plain(x):
            q, k = _rotated(qkv[:, :2], rope).to(qkv.dtype).unbind(1)
            v = qkv[:, 2]
        else:
            q, k, v = _RotatedQueriesKeys.apply(qkv, rope)  # [N, H, D] each, q scaled
        if cache is None:
            attended = self.attend(q, k, v, spans.offsets, self.window)
        else:
            attended = cache.attend(q, k, v)
        return self.out(attended.flatten(1))


class _SwiGLUDown(torch.autograd.Function):
    """(silu(gate) * up) @ down.T of gate_up [N, 2 f]; computes the product again in backward."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, down)
        down = down.to(gate_up.dtype)
        out = gate_up.new_empty(len(gate_up), len(down))
        for rows in chunks(gate_up, FF_CHUNK):
            gate, up = gate_up[rows].chunk(2, dim=-1)
            # silu is twice as fast on contiguous memory
            out[rows] = F.linear(F.silu(gate.contiguous()).mul_(up), down)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate_up, down = ctx.saved_tensors
        d_gate_up, product = torch.empty_like(gate_up), grad.new_empty(len(grad), down.shape[1])
        for rows in chunks(gate_up, FF_CHUNK):
            gate, up = (part.contiguous() for part in gate_up[rows].chunk(2, dim=-1))
            d_gate, d_up = d_gate_up[rows].chunk(2, dim=-1)
            gated = F.silu(gate)
            torch.mul(gated, up, out=product[rows])
            d_product = grad[rows] @ down.to(grad.dtype)
            d_up.copy_(gated.mul_(d_product))
            d_gate.copy_(torch.ops.aten.silu_backward(d_product.mul_(up), gate))
        return d_gate_up, (grad.t() @ product).to(down.dtype)


class SwiGLU(nn.Module):
    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * ff_dim)
        self.down = Linear(ff_dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [N, d]
        if is_plain(x):
            return self._down(self.gate_up(x))
        if torch.is_grad_enabled():
            return _SwiGLUDown.apply(self.gate_up(x), self.down.weight)  # type: ignore[no-any-return]
        # Without gradients the widest activation need not exist for all bytes at once.
        wide = map(self.gate_up, x.split(SCORED_ROWS))
        return torch.cat(
            [self._down(part[rows]) for part in wide for rows in chunks(part, FF_CHUNK)]
        )

    def _down(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return self.down(F.silu(gate.contiguous()).mul_(up))  # type: ignore[no-any-return]


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

    def forward(
        self,
        x: Tensor,
        delta: Tensor | None,
        rope: Tensor,
        spans: Spans,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream [N, d] is ``x + delta``; the norm that reads it next adds it up."""
        x, normed = self.attention_norm.add(x, delta)
        x, normed = self.ff_norm.add(x, self.attention(normed, rope, spans, cache))
        return x, self.ff(normed)


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
        rope_scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.rope_theta, self.rope_scaling = rope_theta, rope_scaling
        self.depth, self.window = layers, window
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, ff_dim, eps, window) for _ in range(layers)
        )

    def frequencies(self, device: torch.device) -> Tensor:
        return rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling, device)

    def rope(self, spans: Spans) -> Tensor:
        return rope_rotations(spans.positions, self.frequencies(spans.positions.device))

    def forward(
        self, x: Tensor, spans: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:  # x [N, d]
        rope, delta = self.rope(spans), None
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            x, delta = layer(x, delta, rope, spans, cache)
        return x if delta is None else x + delta
