"""Held-out bits per byte: what every comparison here is made in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from blt import vocab
from blt.machine.hardware import reading_bytes
from blt.machine.precision import autocast, reading_dtype
from blt.model.language import CausalLM
from blt.model.transformer import cross_entropy
from blt.texts.pieces import choose, grouped, segments

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
    documents = [lm.ids_of(piece) for piece in pieces]
    logits = lm.packed_logits(documents).split(ROWS)  # float32 copies of a few at a time
    targets = torch.cat([F.pad(ids[1:], (0, 1), value=vocab.PAD) for ids in documents])
    targets = targets.to(lm.device)
    pairs = zip(logits, targets.split(ROWS), strict=True)
    found = [cross_entropy(x, y) for x, y in pairs]
    return sum(torch.stack(found).tolist())


@torch.no_grad()
def bits_per_byte(
    lm: ScoresBytes,
    documents: Sequence[bytes],
    *,
    context_bytes: int = 2048,
    max_bytes: int | None = None,
    dtype: torch.dtype | None = None,
) -> float:
    """Cross-entropy of all bytes of ``documents``, in bits per byte.

    Args:
        lm: a BLT or byte transformer.
        context_bytes: documents are cut into pieces of at most so many bytes, and each starts anew
            from BOS.
        max_bytes: score this many bytes only, as :func:`blt.texts.pieces.choose` takes them.
        dtype: of matrix products: float32, or bfloat16 as in training. None: bfloat16 on a GPU that
            has it, else float32.

    Returns:
        bits per byte; 0.0 for no bytes.
    """
    pieces = segments(choose(documents, max_bytes), context_bytes)
    total = 0.0
    with autocast(lm.device, dtype or reading_dtype(lm.device)):
        for group in grouped(pieces, reading_bytes(lm.device)):
            total += lm.nats(group)
    return total / math.log(2) / max(1, sum(map(len, pieces)))
