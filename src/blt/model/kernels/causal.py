"""Which causal attention over a flat packed stream is taken, and that of a text's last rows."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels.blocks import BLOCK, BlockAttention
from blt.model.kernels.flash import fits_flash, flash_attention

LONG = 2048  # positions that see all before them: whole rows of scores would be kept


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
    if fits_flash(q):
        return flash_attention(q, k, v, offsets, window)
    if window is None and not torch.is_grad_enabled() and _longest(offsets) > LONG:
        documents = [slice(start, end) for start, end in pairwise(offsets)]
        return torch.cat([_document_attention(q[one], k[one], v[one]) for one in documents])
    return BlockAttention.apply(q, k, v, offsets, window)  # type: ignore[no-any-return]


def _document_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All of the past of one document, without gradients  # [n, H, D] all.

    Which kernel does it depends on the document alone, not on what it is packed with.
    """
    if len(q) <= LONG:
        return BlockAttention.apply(q, k, v, (0, len(q)), None)  # type: ignore[no-any-return]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    return attended[0].transpose(0, 1)


def _longest(offsets: tuple[int, ...]) -> int:
    return max((end - start for start, end in pairwise(offsets)), default=0)


def attention_after(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Attention of the last n of m positions of one document, whose keys are all known.

    Memory grows with m, not with n * m: few queries at a time meet many keys.

    Args:
        q: [n, H, D] queries, already scaled.
        k: [m, H, D] keys, m >= n.
        v: [m, H, D] values.
        window: as for :func:`attention`.

    Returns:
        [n, H, D]
    """
    past = len(k) - len(q)
    parts = []
    for first, queries in enumerate(q.transpose(0, 1).split(BLOCK, 1)):
        at = past + first * BLOCK
        end = at + queries.shape[1]
        start = 0 if window is None else max(0, at - window)
        alone = queries.shape[1] == 1 and window is None
        bias = None if alone else _bias(queries.shape[1], end - start, window, q.dtype, q.device)
        keys, values = (x[start:end].transpose(0, 1)[None] for x in (k, v))
        parts.append(
            F.scaled_dot_product_attention(queries[None], keys, values, attn_mask=bias, scale=1.0)
        )
    return torch.cat(parts, 2)[0].transpose(0, 1)


def _bias(
    rows: int, width: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """-inf where one of the last ``rows`` of ``width`` positions does not see  # [rows, width]."""
    bias = torch.full((rows, width), -torch.inf, dtype=dtype, device=device)
    bias.triu_(width - rows + 1)
    if window is not None:
        hidden = torch.ones(rows, width, dtype=torch.bool, device=device)
        bias.masked_fill_(hidden.tril(width - rows - window), -torch.inf)
    return bias
