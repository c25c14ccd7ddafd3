"""PyTorch's flash attention over packed documents: for GPUs and narrow floats."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor


def fits_flash(q: Tensor) -> bool:
    """Does PyTorch's flash attention take it? It is for GPUs and narrow floats."""
    narrow = q.dtype in (torch.bfloat16, torch.float16)
    shape = q.shape[-1] % 8 == 0 and q.shape[-1] <= 256 and len(q) > 0
    return q.is_cuda and narrow and shape and torch.cuda.get_device_capability(q.device) >= (8, 0)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: tuple[int, ...], window: int | None
) -> Tensor:
    # Late: it brings PyTorch's compiler with it, a second and 76 MB.
    varlen = import_module("torch.nn.attention.varlen")
    cu_seqlens, longest = _cu_seqlens(offsets, q.device)
    past = -1 if window is None else window - 1  # keys before the query's own
    attended = varlen.varlen_attn(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=1.0, window_size=(past, 0)
    )
    assert isinstance(attended, Tensor)
    return attended


@lru_cache(maxsize=64)
def _cu_seqlens(offsets: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """Offsets as the kernel wants them  # [documents + 1] int32; and the longest document."""
    longest = max(end - start for start, end in pairwise(offsets))
    with torch.inference_mode(False):  # kept, and then used in training too
        return torch.tensor(offsets, dtype=torch.int32, device=device), longest
