"""Attention over flat packed streams: causal within documents, optionally in a sliding window.

One block of queries at a time meets only the keys it may see, so cost and memory are linear in
bytes for a window, no mask wider than a block exists, and documents need no padding. The blocks
are small enough for their scores to stay in cache, which is what makes this fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries; fastest of 64, 128, 256, 512 at 8192 bytes, window 512


def attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None = None
) -> Tensor:
    """Softmax attention of each position to its own document's past.

    Args:
        q: [N, H, D] queries, already scaled by D**-0.5.
        k: [N, H, D] keys.
        v: [N, H, D] values.
        offsets: [documents + 1] where documents start, ending in N.
        window: key j is visible to query i iff 0 <= i - j < window; None: all of the past.

    Returns:
        [N, H, D]
    """
    return _BlockAttention.apply(q, k, v, offsets, window)  # type: ignore[no-any-return]


def _blocks(offsets: tuple[int, ...], window: int | None) -> Iterator[tuple[int, int, int]]:
    """(first query, end, first key) of every block."""
    for start, end in pairwise(offsets):
        for first in range(start, end, BLOCK):
            # One key more than the window needs, so that full blocks have round widths.
            first_key = start if window is None else max(start, first - window)
            yield first, min(first + BLOCK, end), first_key


@lru_cache(maxsize=64)
def _future(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Scores to add: -inf where key j > query i, else 0  # [rows, rows]."""
    hidden = torch.ones(rows, rows, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(rows, rows, dtype=dtype, device=device).masked_fill(hidden, -torch.inf)


def _probabilities(q: Tensor, keys: Tensor, lead: int, window: int | None) -> Tensor:
    """Attention weights of one block  # [H, n, m].

    Args:
        q: [H, n, D] queries; query i lies at key index ``lead + i``.
        keys: [H, D, m] transposed keys.
    """
    scores = torch.bmm(q, keys)
    rows = q.shape[1]
    scores[:, :, lead:] += _future(rows, q.dtype, q.device)
    if window is not None and lead + rows > window:  # keys ``window`` or more behind
        width = lead + rows - window
        hidden = _outside_window(rows, width, lead - window, q.dtype, q.device)
        scores[:, :, :width] += hidden
    return torch.softmax(scores, -1)


@lru_cache(maxsize=64)
def _outside_window(
    rows: int, width: int, shift: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Scores to add: -inf where key j <= query i + shift, else 0  # [rows, width]."""
    hidden = torch.ones(rows, width, dtype=torch.bool, device=device).tril(shift)
    return torch.zeros(rows, width, dtype=dtype, device=device).masked_fill(hidden, -torch.inf)


class _BlockAttention(torch.autograd.Function):
    """Keeps only q, k, v for the backward pass; probabilities are computed again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.layout = (offsets, window)
        out = torch.empty_like(q)
        queries, keys, values = map(_heads_first, (q, k, v))
        keys_t = keys.transpose(1, 2).contiguous()
        for first, end, first_key in _blocks(offsets, window):
            seen = slice(first_key, end)
            p = _probabilities(queries[:, first:end], keys_t[:, :, seen], first - first_key, window)
            out[first:end] = torch.bmm(p, values[:, seen]).transpose(0, 1)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        offsets, window = ctx.layout
        queries, keys, values, grads = map(_heads_first, (*ctx.saved_tensors, grad))
        keys_t, values_t = (x.transpose(1, 2).contiguous() for x in (keys, values))
        dq, dk, dv = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        for first, end, first_key in _blocks(offsets, window):
            q, g, seen = queries[:, first:end], grads[:, first:end], slice(first_key, end)
            p = _probabilities(q, keys_t[:, :, seen], first - first_key, window)
            dp = torch.bmm(g, values_t[:, :, seen])
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, first:end] = torch.bmm(ds, keys[:, seen])
            dk[:, seen] += torch.bmm(ds.transpose(1, 2), q)
            dv[:, seen] += torch.bmm(p.transpose(1, 2), g)
        return *(x.transpose(0, 1) for x in (dq, dk, dv)), None, None


def _heads_first(x: Tensor) -> Tensor:
    """[N, H, D] → [H, N, D], contiguous: the layout that batched products take without a copy."""
    return x.transpose(0, 1).contiguous()
