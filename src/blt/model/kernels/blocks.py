"""Causal attention in blocks, and its gradients, in operations of PyTorch, for any device.

One block of queries at a time meets only the keys it may see, so cost and memory are linear in
bytes for a window, no mask wider than a block exists, and documents need no padding. The blocks
are small enough for their scores to stay in cache, which is what makes this fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
from torch import Tensor

BLOCK = 128  # queries; fastest of 64, 128, 256, 512 at 8192 bytes, window 512
SCORES = 4 * BLOCK * 640  # per head, of the blocks in one batched product; more leaves the cache
# Documents are laid out in multiples of this many rows, for few shapes of blocks: oneDNN compiles
# each new shape of a bfloat16 product, which takes ten times as long as running it.
ALIGNED = 32


def _blocks(
    offsets: tuple[int, ...], window: int | None
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Blocks of equal shape, a few at a time.

    Yields:
        rows: queries of each block.
        lead: keys that each block sees before its first query.
        firsts: where the blocks' queries start.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for start, end in pairwise(offsets):
        for first in range(start, end, BLOCK):
            # One key more than the window needs, so that full blocks have round widths.
            lead = first - start if window is None else min(first - start, window)
            by_shape.setdefault((min(BLOCK, end - first), lead), []).append(first)
    for (rows, lead), firsts in by_shape.items():
        together = max(1, SCORES // (rows * (lead + rows)))
        while firsts:
            count = 1 << min(together, len(firsts)).bit_length() - 1  # powers of two: few shapes
            yield rows, lead, tuple(firsts[:count])
            firsts = firsts[count:]


@lru_cache(maxsize=64)
def _future(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Scores to add: -inf where key j > query i, else 0  # [rows, rows]."""
    hidden = torch.ones(rows, rows, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(rows, rows, dtype=dtype, device=device).masked_fill(hidden, -torch.inf)


def _probabilities(q: Tensor, k: Tensor, lead: int, window: int | None) -> Tensor:
    """Attention weights of one block  # [H, n, m].

    Args:
        q: [H, n, D] queries; query i lies at key index ``lead + i``.
        k: [H, m, D] keys.
    """
    scores = torch.bmm(q, k.transpose(1, 2))
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


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
) -> Tensor:
    """q (scaled), k, v [N, H, D], documents' offsets [documents + 1] → [N, H, D]."""
    queries, keys, values = (_heads_first(x, offsets) for x in (q, k, v))
    parts: dict[int, Tensor] = {}
    for rows, lead, firsts in _blocks(_aligned(offsets), window):
        seen = [slice(i - lead, i + rows) for i in firsts]
        q = torch.cat([queries[:, i : i + rows] for i in firsts])  # [blocks * H, rows, D]
        p = _probabilities(q, torch.cat([keys[:, s] for s in seen]), lead, window)
        attended = torch.bmm(p, torch.cat([values[:, s] for s in seen]))
        parts.update(zip(firsts, attended.split(len(queries)), strict=True))
    return _heads_second(_in_order(parts, queries), offsets)


def block_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: tuple[int, ...],
    window: int | None,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v of :func:`block_attention`; probabilities are computed again."""
    queries, keys, values, grads = (_heads_first(x, offsets) for x in (q, k, v, grad))
    dk, dv = torch.zeros_like(keys), torch.zeros_like(values)
    dq_parts: dict[int, Tensor] = {}
    for rows, lead, firsts in _blocks(_aligned(offsets), window):
        seen = [slice(i - lead, i + rows) for i in firsts]
        q = torch.cat([queries[:, i : i + rows] for i in firsts])
        g = torch.cat([grads[:, i : i + rows] for i in firsts])
        k = torch.cat([keys[:, s] for s in seen])
        v = torch.cat([values[:, s] for s in seen])
        p = _probabilities(q, k, lead, window)
        ds = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
        dq_parts.update(zip(firsts, torch.bmm(ds, k).split(len(dk)), strict=True))
        dk_parts = torch.bmm(ds.transpose(1, 2), q).split(len(dk))
        dv_parts = torch.bmm(p.transpose(1, 2), g).split(len(dv))
        for s, dk_part, dv_part in zip(seen, dk_parts, dv_parts, strict=True):
            dk[:, s] += dk_part
            dv[:, s] += dv_part
    dq = _in_order(dq_parts, queries)
    return tuple(_heads_second(x, offsets) for x in (dq, dk, dv))


def _in_order(parts: dict[int, Tensor], empty: Tensor) -> Tensor:
    """Blocks [H, rows, D] by their first row → [H, M, D]; ``empty`` where there are none."""
    return torch.cat([parts[first] for first in sorted(parts)], 1) if parts else empty


def _aligned(offsets: tuple[int, ...]) -> tuple[int, ...]:
    """Where documents start once each is as long as a multiple of ALIGNED."""
    lengths = (-((start - end) // ALIGNED) * ALIGNED for start, end in pairwise(offsets))
    return tuple(accumulate(lengths, initial=0))


def _heads_first(x: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """[N, H, D] → [H, M, D], documents aligned, with zeros between them."""
    aligned = _aligned(offsets)
    if aligned == offsets:
        return x.transpose(0, 1).contiguous()
    out = x.new_zeros(x.shape[1], aligned[-1], x.shape[2])
    for start, (first, end) in zip(aligned, pairwise(offsets), strict=False):
        out[:, start : start + end - first] = x[first:end].transpose(0, 1)
    return out


def _heads_second(x: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """The way back: [H, M, D] → [N, H, D]."""
    aligned = _aligned(offsets)
    if aligned == offsets:
        return x.transpose(0, 1)
    out = x.new_empty(offsets[-1], x.shape[0], x.shape[2])
    for start, (first, end) in zip(aligned, pairwise(offsets), strict=False):
        out[first:end] = x[:, start : start + end - first].transpose(0, 1)
    return out
