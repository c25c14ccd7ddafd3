"""Causal attention with gradients where there is no flash attention: on a CPU in C++ where that
fits, elsewhere in blocks of PyTorch's operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blt.model.kernels import blocks, tiles


def attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
) -> Tensor:
    """q (scaled), k, v [N, H, D], documents' offsets [documents + 1] → [N, H, D]."""
    take = tiles.attention if tiles.fits(q, offsets, window) else blocks.block_attention
    return take(q, k, v, offsets, window)


def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: tuple[int, ...],
    window: int | None,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v of :func:`attention`; probabilities are computed again."""
    in_cpp = tiles.fits(q, offsets, window)
    take = tiles.attention_backward if in_cpp else blocks.block_attention_backward
    return take(grad, q, k, v, offsets, window)


class HostAttention(torch.autograd.Function):
    """Keeps only q, k, v for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.layout = (offsets, window)
        return attention(q, k, v, offsets, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *attention_backward(grad, *ctx.saved_tensors, *ctx.layout), None, None
