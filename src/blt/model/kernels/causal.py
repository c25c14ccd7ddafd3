"""Which causal attention over a flat packed stream is taken, and that of a text's last rows."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels import operators
from blt.model.kernels.blocks import BLOCK
from blt.model.kernels.flash import fits_flash, flash_attention
from blt.model.kernels.host import HostAttention
from blt.model.kernels.rows import longest

LONG = 2048  # positions that see all before them: whole rows of scores would be kept


class Packed(Protocol):
    """Where documents lie in a flat stream of N rows."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """[documents + 1] where documents start, ending in N, on the host."""
        ...

    @property
    def cu_seqlens(self) -> Tensor:
        """The same on the device  # [documents + 1] int32."""
        ...

    @property
    def longest(self) -> int:
        """Rows of the longest document."""
        ...


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, documents: Packed, window: int | None
) -> Tensor:
    """As :func:`attention`; where it is traced or runs on a GPU, the host need not know lengths."""
    k, v = of_each_head(q, k, v)
    if fits_flash(q):
        return flash_attention(q, k, v, documents.cu_seqlens, documents.longest, window)
    if torch.compiler.is_compiling():
        return operators.attention(q, k, v, documents.cu_seqlens, window)
    return attention(q, k, v, documents.offsets, window)


def attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None = None
) -> Tensor:
    """Softmax attention of each position to its own document's past.

    Args:
        q: [N, H, D] queries, already scaled by D**-0.5.
        k: [N, H, D] keys, or fewer heads, each of which several heads of queries share.
        v: [N, H, D] values, as many.
        offsets: [documents + 1] where documents start, ending in N.
        window: key j is visible to query i iff 0 <= i - j < window; None: all of the past.

    Returns:
        [N, H, D]
    """
    k, v = of_each_head(q, k, v)
    if fits_flash(q):
        return flash_attention(q, k, v, *_on_device(offsets, q.device), window)
    if window is None and not torch.is_grad_enabled() and longest(offsets) > LONG:
        documents = [slice(start, end) for start, end in pairwise(offsets)]
        return torch.cat([_document_attention(q[one], k[one], v[one]) for one in documents])
    return HostAttention.apply(q, k, v, offsets, window)  # type: ignore[no-any-return]


def of_each_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [N, H, D] for each head of q [N, H, D], where several share one."""
    share = q.shape[1] // k.shape[1]
    if share == 1:
        return k, v
    k, v = (x[:, :, None].expand(-1, -1, share, -1).flatten(1, 2) for x in (k, v))
    return k, v


@lru_cache(maxsize=64)
def _on_device(offsets: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """Offsets as kernels want them  # [documents + 1] int32; and the longest document."""
    with torch.inference_mode(False):  # kept, and then used in training too
        return torch.tensor(offsets, dtype=torch.int32, device=device), longest(offsets)


def _document_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All of the past of one document, without gradients  # [n, H, D] all.

    Which kernel does it depends on the document alone, not on what it is packed with.
    """
    if len(q) <= LONG:
        return HostAttention.apply(q, k, v, (0, len(q)), None)  # type: ignore[no-any-return]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    return attended[0].transpose(0, 1)


def attention_after(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Attention of the last n of m positions of one document, whose keys are all known.

    Memory grows with m, not with n * m: few queries at a time meet many keys.

    Args:
        q: [n, H, D] queries, already scaled.
        k: [m, H, D] keys, m >= n; perhaps of fewer heads, as for :func:`attention`.
        v: [m, H, D] values.
        window: as for :func:`attention`.

    Returns:
        [n, H, D]
    """
    past, shared = len(k) - len(q), k.shape[1] < q.shape[1]
    parts = []
    for first, queries in enumerate(q.transpose(0, 1).split(BLOCK, 1)):
        at = past + first * BLOCK
        end = at + queries.shape[1]
        start = 0 if window is None else max(0, at - window)
        alone = queries.shape[1] == 1 and window is None
        bias = None if alone else _bias(queries.shape[1], end - start, window, q.dtype, q.device)
        keys, values = (x[start:end].transpose(0, 1)[None] for x in (k, v))
        parts.append(
            F.scaled_dot_product_attention(
                queries[None], keys, values, attn_mask=bias, scale=1.0, enable_gqa=shared
            )
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
