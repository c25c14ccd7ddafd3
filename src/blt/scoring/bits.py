"""Held-out bits per byte: what every comparison here is made in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from blt import vocab
from blt.model.language import CausalLM
from blt.texts.pieces import BATCH_BYTES, choose, grouped, segments

ROWS = 8192  # of logits that are float32 at the same time


class ScoresBytes(Protocol):
    """A model that can say what bytes cost it."""

    @property
    def device(self) -> torch.device: ...

    def nats(self, pieces: Sequence[bytes]) -> float:
        """Cross-entropy of all bytes of pieces, each a document, in nats."""
        ...


@torch.no_grad()
def nats(lm: CausalLM, pieces: Sequence[bytes]) -> float:
    """Cross-entropy of all bytes of ``pieces``, each a document, in nats; in one forward."""
    documents = [lm.ids_of(piece).to(lm.device) for piece in pieces]
    logits = lm.packed_logits(documents).split(ROWS)  # float32 copies of a few at a time
    targets = torch.cat([F.pad(ids[1:], (0, 1), value=vocab.PAD) for ids in documents])
    return sum(
        F.cross_entropy(x.float(), y, ignore_index=vocab.PAD, reduction="sum").item()
        for x, y in zip(logits, targets.split(ROWS), strict=True)
    )


@torch.no_grad()
def bits_per_byte(
    lm: ScoresBytes,
    documents: Sequence[bytes],
    *,
    context_bytes: int = 2048,
    max_bytes: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Cross-entropy of all bytes of ``documents``, in bits per byte.

    Args:
        lm: a BLT or byte transformer.
        context_bytes: documents are cut into pieces of at most so many bytes, and each starts anew
            from BOS.
        max_bytes: score this many bytes only, as :func:`blt.texts.pieces.choose` takes them.
        dtype: of matrix products: float32, or bfloat16 as in training.

    Returns:
        bits per byte; 0.0 for no bytes.
    """
    pieces = segments(choose(documents, max_bytes), context_bytes)
    total = 0.0
    with torch.autocast(lm.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        for group in grouped(pieces, BATCH_BYTES):
            total += lm.nats(group)
    return total / math.log(2) / max(1, sum(map(len, pieces)))
