"""A byte-level transformer without patches: the entropy model, and the flat baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import ByteTransformerConfig
from blt.model.layers import KeyValueCache, Linear, RMSNorm, Transformer, init_linear
from blt.model.packing import Spans
from blt.vocab import VOCAB_SIZE

HEAD_ROWS = 8192  # at a time: logits are much wider than the states of a small model
PIECE = 32768  # bytes whose entropies are computed together


class ByteTransformer(nn.Module):
    """Causal language model over bytes with a sliding window (paper §2.3, §4.2)."""

    def __init__(self, config: ByteTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.byte = nn.Parameter(torch.empty(VOCAB_SIZE, config.dim, dtype=torch.float32))
        self.transformer = Transformer(
            config.dim,
            config.heads,
            config.layers,
            config.ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            window=config.sliding_window,
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = Linear(config.dim, VOCAB_SIZE)
        init_linear(self.byte, config.dim)

    def forward(
        self, ids: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """ids [N] → logits [N, 260]."""
        return self.head(self._states(ids, documents, caches))  # type: ignore[no-any-return]

    def entropies(self, ids: Tensor, documents: Spans) -> Tensor:
        """ids [N] → entropy in nats of the prediction of the byte after each  # [N] float32.

        Long documents are read in overlapping pieces, so memory does not grow with their length.
        """
        reach = self.config.layers * (self.config.sliding_window - 1)  # back, through all layers
        parts = []
        for pieces in _pieces(documents.offsets, reach):
            spans = Spans.from_lengths([end - first for first, _, end in pieces])
            positions = torch.cat([documents.positions[first:end] for first, _, end in pieces])
            read = torch.cat([ids[first:end] for first, _, end in pieces])
            entropies = self._entropies(read, Spans(spans.offsets, positions))
            for (first, kept, _), part in zip(pieces, spans.split(entropies), strict=True):
                parts.append(part[kept - first :])
        return torch.cat(parts)

    def _entropies(self, ids: Tensor, documents: Spans) -> Tensor:
        parts = []
        for states in self._states(ids, documents).split(HEAD_ROWS):
            parts.append(entropy(self.head(states)))
        return torch.cat(parts)

    def _states(
        self, ids: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """ids [N] → what the output head reads  # [N, d]."""
        x = self.transformer(F.embedding(ids, self.byte), documents, caches)
        return self.norm(x)  # type: ignore[no-any-return]


def entropy(logits: Tensor) -> Tensor:
    """Of the prediction in nats: logits [N, 260] → [N] float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def _pieces(offsets: tuple[int, ...], reach: int) -> Iterator[list[tuple[int, int, int]]]:
    """Groups of about PIECE bytes of (first byte read, first byte kept, end)."""
    group: list[tuple[int, int, int]] = []
    size = 0
    for start, end in pairwise(offsets):
        for kept in range(start, end, PIECE):
            first, stop = max(start, kept - reach), min(kept + PIECE, end)
            group.append((first, kept, stop))
            size += stop - first
            if size >= PIECE:
                yield group
                group, size = [], 0
    if group:
        yield group
