"""Bytes per patch, or per token, of any model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blt.lm import BLT, LanguageModel, TokenModel


def patch_size(
    lm: LanguageModel,
    texts: Sequence[bytes],
    context_bytes: int,
    dtype: torch.dtype | None = None,
) -> float | None:
    """Mean bytes per patch or token; None for a model without either.

    Args:
        context_bytes: texts are cut into pieces of at most so many bytes.
        dtype: of matrix products; None: bfloat16 on a GPU that has it, else float32.
    """
    if isinstance(lm, TokenModel):
        return sum(map(len, texts)) / max(1, sum(len(lm.tokenizer.encode(t)) for t in texts))
    if not isinstance(lm, BLT):
        return None
    return lm.patcher.mean_patch_size(
        texts, context_bytes=context_bytes, sample_bytes=None, dtype=dtype
    )
