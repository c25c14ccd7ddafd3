"""The attention of GPUs over packed documents, in narrow floats: the best that is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

# FlashAttention 4 and 3, if these packages are there; PyTorch brings version 2 along.
INSTALLED = (("FA4", "flash_attn.cute.interface"), ("FA3", "flash_attn_interface"))


# Found out once, before anything is traced: a graph cannot look for it.
_attend: Callable[..., Any] | None = None  # over packed documents
_looked = False


def fits_flash(q: Tensor) -> bool:
    """Does PyTorch's flash attention take it? It is for GPUs and narrow floats."""
    if not q.is_cuda or q.dtype not in (torch.bfloat16, torch.float16):
        return False
    if not _looked:
        look()
    return _attend is not None and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


def look() -> None:
    """Find out whether the GPU has flash attention, and take the best that is installed."""
    global _attend, _looked
    _looked = True
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        return
    choose()
    # Late: it brings PyTorch's compiler with it, a second and 76 MB.
    _attend = import_module("torch.nn.attention.varlen").varlen_attn


def choose() -> str:
    """Let PyTorch run FlashAttention 4 or 3, if they are installed; which it is: FA4, FA3, FA2."""
    attention = import_module("torch.nn.attention")
    for name, package in INSTALLED:
        if find_spec(package.partition(".")[0]) is None:
            continue
        try:
            attention.activate_flash_attention_impl(name)
        except Exception as error:  # of whatever kind: another version of it, another device
            logging.getLogger("blt").warning(
                "%s is installed but cannot be used (%s); the next best is taken", name, error
            )
        else:
            return name
    return "FA2"


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, window: int | None
) -> Tensor:
    """q (scaled), k, v [N, H, D], offsets [documents + 1] int32, the longest one → [N, H, D]."""
    assert _attend is not None
    past = -1 if window is None else window - 1  # keys before the query's own
    attended = _attend(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=1.0, window_size=(past, 0)
    )
    assert isinstance(attended, Tensor)
    return attended
