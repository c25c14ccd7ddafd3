"""Bytes per patch, or per token, of any model."""

from __future__ import annotations

from collections.abc import Sequence

from blt.lm import BLT, LanguageModel
from blt.token_lm import TokenModel
from blt.train.calibration import mean_patch_size


def patch_size(lm: LanguageModel, texts: Sequence[bytes], context_bytes: int) -> float | None:
    """Mean bytes per patch or token; None for a model without either."""
    if isinstance(lm, TokenModel):
        return sum(map(len, texts)) / max(1, sum(len(lm.tokenizer.encode(t)) for t in texts))
    if not isinstance(lm, BLT):
        return None
    rule, how = lm.config.patching, {"context_bytes": context_bytes, **lm.tables}
    return mean_patch_size(rule, lm.entropy_model, texts, **how)
