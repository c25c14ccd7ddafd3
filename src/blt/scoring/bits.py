"""Held-out bits: of each piece of text, and per byte, which every comparison here is made in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.machine.hardware import reading_bytes
from blt.machine.precision import autocast, reading_dtype
from blt.model.language import CausalLM
from blt.texts.marked import Marked
from blt.texts.pieces import choose, grouped, groups

ROWS = 8192  # of logits that are float32 at the same time


class ScoresBytes(Protocol):
    """A model that can say what bytes cost it."""

    @property
    def device(self) -> torch.device: ...

    def piece_nats(self, pieces: Sequence[bytes]) -> list[float]:
        """Cross-entropy of each piece's bytes, in nats, each a document of its own."""
        ...

    def learned_nats(self, pieces: Sequence[bytes]) -> tuple[float, int]:
        """Cross-entropy of what is learned of them, in nats, and of how many bytes it is."""
        ...


class Measured(NamedTuple):
    """What a model needs to write something."""

    bits: float
    num_bytes: int  # that these bits are for

    @property
    def bits_per_byte(self) -> float:
        return self.bits / max(1, self.num_bytes)


@torch.no_grad()
def piece_nats(lm: CausalLM, pieces: Sequence[bytes]) -> list[float]:
    """Cross-entropy of each piece's bytes, in nats, each a document of its own; in one forward."""
    documents = [lm.ids_of(piece) for piece in pieces]
    if not documents:
        return []
    targets = torch.cat([F.pad(ids[1:], (0, 1), value=vocab.PAD) for ids in documents])
    found = target_nats(lm.packed_logits(documents), targets.to(lm.device))
    each = found.cpu().split([len(ids) for ids in documents])
    return [float(nats.sum(dtype=torch.float64)) for nats in each]


def target_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy after each position, 0 where nothing is to predict  # [N, V], [N] → [N]."""
    # Float32 copies of a few at a time.
    pairs = zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    found = [
        F.cross_entropy(x.float(), y, ignore_index=vocab.PAD, reduction="none") for x, y in pairs
    ]
    return torch.cat(found)


@torch.no_grad()
def piece_bits(
    lm: ScoresBytes, pieces: Sequence[bytes], dtype: torch.dtype | None = None
) -> list[float]:
    """Bits of each piece, which starts anew from BOS; many pieces are read together.

    Args:
        lm: any kind of model; one over tokens is charged for the tokens of each piece.
        dtype: of matrix products: float32, or bfloat16 as in training. None: bfloat16 on a GPU that
            has it, else float32.

    Returns:
        as many numbers as pieces; 0.0 for an empty one.
    """
    bits = [0.0] * len(pieces)
    with autocast(lm.device, dtype or reading_dtype(lm.device)):
        for group in groups([len(piece) for piece in pieces], reading_bytes(lm.device)):
            found = lm.piece_nats([pieces[index] for index in group])
            for index, nats in zip(group, found, strict=True):
                bits[index] = nats / math.log(2)
    return bits


@torch.no_grad()
def measured(
    lm: ScoresBytes, pieces: Sequence[bytes], dtype: torch.dtype | None = None
) -> Measured:
    """Bits of all pieces, each a document of its own: of marked ones, of what is learned.

    Args:
        lm: any kind of model.
        dtype: as of :func:`piece_bits`.
    """
    plain = [piece for piece in pieces if not isinstance(piece, Marked)]
    bits, size = sum(piece_bits(lm, plain, dtype)), sum(map(len, plain))
    learned = [piece for piece in pieces if isinstance(piece, Marked)]
    with autocast(lm.device, dtype or reading_dtype(lm.device)):
        for group in grouped(learned, reading_bytes(lm.device)):
            nats, count = lm.learned_nats(group)
            bits, size = bits + nats / math.log(2), size + count
    return Measured(bits, size)


def bits_per_byte(
    lm: ScoresBytes,
    documents: Sequence[bytes],
    *,
    context_bytes: int = 2048,
    max_bytes: int | None = None,
    dtype: torch.dtype | None = None,
) -> float:
    """Cross-entropy of all bytes of ``documents``, in bits per byte; of marked ones, of what is
    learned.

    Args:
        lm: any kind of model.
        context_bytes: documents are cut into pieces of at most so many bytes, and each starts anew
            from BOS.
        max_bytes: score this many bytes only, the same of each document, as
            :func:`blt.texts.pieces.drawn` takes them.
        dtype: as of :func:`piece_bits`.

    Returns:
        bits per byte; 0.0 for no bytes.
    """
    pieces = choose(documents, max_bytes, context_bytes)
    return measured(lm, pieces, dtype).bits_per_byte
