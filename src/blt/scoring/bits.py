"""Held-out bits per byte: what every comparison here is made in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from blt.data.loader import segments

if TYPE_CHECKING:
    from blt.lm import LanguageModel

BATCH_BYTES = 16384  # scored together


def choose(documents: Sequence[bytes], max_bytes: int | None = None) -> list[bytes]:
    """The same part of ``documents`` every time: in the order of their hashes, at most so many.

    Documents are taken whole until the limit, so few long ones may be all that is taken: of twelve
    texts of equal length and a twelfth of their bytes, one text. It is no even sample.

    Args:
        max_bytes: bytes of all together; the last document is cut there. None: all of them.
    """
    chosen: list[bytes] = []
    left = sum(map(len, documents)) if max_bytes is None else max_bytes
    for document in sorted(documents, key=lambda document: hashlib.sha256(document).digest()):
        if left and document:
            chosen.append(document[:left])
            left -= len(chosen[-1])
    return chosen


@torch.no_grad()
def bits_per_byte(
    lm: LanguageModel,
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
        max_bytes: score this many bytes only, as :func:`choose` takes them.
        dtype: of matrix products: float32, or bfloat16 as in training.

    Returns:
        bits per byte; 0.0 for no bytes.
    """
    pieces = segments(choose(documents, max_bytes), context_bytes)
    nats = 0.0
    with torch.autocast(lm.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        for group in grouped(pieces, BATCH_BYTES):
            nats += lm.nats(group)
    return nats / math.log(2) / max(1, sum(map(len, pieces)))


def grouped(pieces: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    """Runs of pieces with about ``size`` bytes together, and at least one piece."""
    group: list[bytes] = []
    total = 0
    for piece in pieces:
        if group and total + len(piece) > size:
            yield group
            group, total = [], 0
        group.append(piece)
        total += len(piece)
    if group:
        yield group
