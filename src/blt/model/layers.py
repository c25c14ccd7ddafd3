"""The transformer layer that every part of the model is built from (paper §3, Llama style)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from blt.model import kernels
from blt.model.config import LLAMA, Block, RopeScaling
from blt.model.packing import Spans

INIT_ROWS = 16384  # drawn at once
OnLayer = Callable[[Tensor], None]  # called with the residual stream [N, d] after every layer


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
        return kernels.add_norm(x, delta, self.weight, self.eps)


def rope_rotations(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Rotations e^{i·position·ω} of interleaved pairs of queries and keys (RoPE).

    Those of queries carry the attention's scale head_dim**-0.5.

    Args:
        positions: [N] index in the document.
        frequencies: [head_dim / 2] ω, radians per position.

    Returns:
        [N, 2, 1, head_dim / 2, 2] float32: for queries, for keys; real and imaginary parts.
    """
    angles = positions[:, None].float() * frequencies
    rope = torch.stack((angles.cos(), angles.sin()), dim=-1)
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


class KeyValueCache(Protocol):
    """Where a layer keeps the keys and values of what it has read, for generation."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v; q attends to them and to what was kept before  # [N, H, D] all; of k and v
        there may be fewer heads."""


class SelfAttention(nn.Module):
    """Causal multi-head self-attention with RoPE; ``window`` None means all of the past."""

    def __init__(
        self, dim: int, heads: int, window: int | None, eps: float = 1e-5, block: Block = LLAMA
    ) -> None:
        super().__init__()
        self.heads, self.window, self.qk_norm = heads, window, block.qk_norm
        self.kv_heads, self.head_dim = block.key_value_heads(heads), block.features(dim, heads)
        self.widths = [n * self.head_dim for n in (heads, self.kv_heads, self.kv_heads)]
        self.qkv = Linear(dim, sum(self.widths))
        self.out = Linear(self.widths[0], dim)
        bias = torch.zeros(sum(self.widths), dtype=torch.float32) if block.qkv_bias else None
        self.qkv_bias = None if bias is None else nn.Parameter(bias)
        if block.qk_norm != "none":
            normed = [self.head_dim] * 2 if block.qk_norm == "head" else self.widths[:2]
            self.q_norm, self.k_norm = (RMSNorm(width, eps) for width in normed)

    def forward(
        self, x: Tensor, rope: Tensor, spans: Spans, cache: KeyValueCache | None = None
    ) -> Tensor:  # x [N, d]
        q, k, v = self.queries_keys_values(x, rope)
        if cache is None:
            attended = kernels.packed_attention(q, k, v, spans, self.window)
        else:
            attended = cache.attend(q, k, v)
        return self.out(attended.flatten(1))

    def queries_keys_values(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, d] → q [N, H, D], rotated and scaled, k, rotated, and v, of perhaps fewer heads."""
        qkv = self.qkv(x)
        if self.qkv_bias is not None:
            qkv = qkv + self.qkv_bias.to(qkv.dtype)
        if self.kv_heads == self.heads and self.qk_norm == "none":
            return kernels.rotated_queries_keys(qkv.unflatten(-1, (3, self.heads, -1)), rope)
        q, k, v = qkv.split(self.widths, -1)
        if self.qk_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in (q, k, v))
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return kernels.rotated(q, rope[:, 0]), kernels.rotated(k, rope[:, 1]), v


class SwiGLU(nn.Module):
    """silu(gate) * up, projected down again."""

    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * ff_dim)
        self.down = Linear(ff_dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [N, d]
        return kernels.swiglu(x, self.gate_up, self.down)


class TransformerLayer(nn.Module):
    """Self-attention, then SwiGLU, each with a norm before it, or after it."""

    def __init__(
        self,
        dim: int,
        heads: int,
        ff_dim: int,
        eps: float,
        window: int | None = None,
        block: Block = LLAMA,
    ) -> None:
        super().__init__()
        self.norms_after = block.norm == "after"
        self.attention_norm = RMSNorm(dim, eps)
        self.attention = SelfAttention(dim, heads, window, eps, block)
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
        if self.norms_after:
            x = x if delta is None else x + delta
            x = x + self.attention_norm(self.attention(x, rope, spans, cache))
            return x, self.ff_norm(self.ff(x))
        x, normed = self.attention_norm.add(x, delta)
        x, normed = self.ff_norm.add(x, self.attention(normed, rope, spans, cache))
        return x, self.ff(normed)


class NgramGate(nn.Module):
    """What hash n-grams add to the residual stream, as much as it asks for (Engram, arXiv
    2601.07372)."""

    def __init__(self, dim: int, rows: int, eps: float) -> None:
        super().__init__()
        self.key, self.value = Linear(rows, dim), Linear(rows, dim)
        self.state_norm, self.key_norm = RMSNorm(dim, eps), RMSNorm(dim, eps)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """The stream [N, d], and the sum of each position's rows [N, e] → [N, d]."""
        fit = (self.state_norm(x) * self.key_norm(self.key(rows))).float().sum(-1, keepdim=True)
        value = self.value(rows)
        return torch.sigmoid(fit * x.shape[-1] ** -0.5).to(value.dtype) * value


class Transformer(nn.Module):
    """A stack of layers over a flat packed stream, with one table of rotations for all.

    Args:
        gated: features e of the hash n-grams beside what it reads, [N, d + e], which a gate adds
            after the first layer; None: there are none.
    """

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
        gated: int | None = None,
        block: Block = LLAMA,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.block = dim, heads, block
        self.kv_heads, self.head_dim = block.key_value_heads(heads), block.features(dim, heads)
        self.rope_theta, self.rope_scaling = rope_theta, rope_scaling
        self.depth, self.window = layers, window
        self.begins_with_zeros = False  # so that the first layer takes what the others take
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, ff_dim, eps, window, block) for _ in range(layers)
        )
        self.gate = None if gated is None else NgramGate(dim, gated, eps)

    def frequencies(self, device: torch.device) -> Tensor:
        return rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling, device)

    def rope(self, spans: Spans) -> Tensor:
        return rope_rotations(spans.positions, self.frequencies(spans.positions.device))

    def first_delta(self, x: Tensor) -> Tensor | None:
        """What is added to the residual stream x [N, d] before the first layer: nothing."""
        if not self.begins_with_zeros:
            return None
        needs = torch.is_grad_enabled()  # what the others take has gradients
        return torch.zeros_like(x, dtype=kernels.compute_dtype(x), requires_grad=needs)

    def forward(
        self,
        x: Tensor,
        spans: Spans,
        caches: Sequence[KeyValueCache] | None = None,
        on_layer: OnLayer | None = None,
    ) -> Tensor:  # x [N, d]
        if self.gate is not None:
            x, rows = (part.contiguous() for part in x.tensor_split((self.dim,), -1))
        rope, delta = self.rope(spans), self.first_delta(x)
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            x, delta = layer(x, delta, rope, spans, cache)
            if index == 0 and self.gate is not None:
                x = x + delta
                delta = self.gate(x, rows)
            if on_layer is not None:
                on_layer(x + delta)
        return x if delta is None else x + delta
