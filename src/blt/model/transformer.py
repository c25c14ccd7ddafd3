"""A transformer without patches, over bytes or tokens: entropy model and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import ByteTransformerConfig, TokenTransformerConfig
from blt.model.layers import KeyValueCache, Linear, RMSNorm, Transformer, init_linear
from blt.model.packing import Spans
from blt.vocab import OFFSET

HEAD_ROWS = 8192  # at a time: logits are much wider than the states of a small model
PIECE = 32768  # bytes whose entropies are computed together


class CausalTransformer(nn.Module):
    """Causal language model, Llama style: over bytes with a sliding window (paper §2.3, §4.2), or
    over tokens that see all before them."""

    byte: nn.Parameter  # of bytes; of tokens it is called "embedding"

    def __init__(self, config: ByteTransformerConfig | TokenTransformerConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.kind = config.kind
        table = nn.Parameter(torch.empty(config.num_ids, config.dim, dtype=torch.float32))
        self.register_parameter(config.embedding_name, table)
        self.transformer = Transformer(
            config.dim,
            config.heads,
            config.layers,
            config.ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            window=config.sliding_window,
            rope_scaling=config.rope_scaling,
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = Linear(config.dim, config.num_ids)
        init_linear(table, config.dim)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(
        self, ids: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """ids [N] → logits [N, ids of the vocabulary]."""
        return self.head(self._states(ids, documents, caches))  # type: ignore[no-any-return]

    @torch.no_grad()
    def document_entropies(
        self, documents: Sequence[Tensor], newline_reset: bool = False
    ) -> tuple[Tensor, ...]:
        """Documents, ids [T] each → nats [T] each, of the prediction of the id after each.

        Args:
            newline_reset: look back to the last newline only (paper §4.4).
        """
        spans = Spans.from_lengths([len(ids) for ids in documents], documents[0].device)
        ids = torch.cat(list(documents))
        return spans.split(self.entropies(ids, entropy_contexts(ids, spans, newline_reset)))

    def entropies(self, ids: Tensor, documents: Spans) -> Tensor:
        """ids [N] → entropy in nats of the prediction of the id after each  # [N] float32.

        Long documents are read in overlapping pieces, so memory does not grow with their length.
        """
        window = self.config.sliding_window or documents.offsets[-1]
        reach = self.config.layers * (window - 1)  # back, through all layers
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
        table = getattr(self, self.config.embedding_name)
        x = self.transformer(F.embedding(ids, table), documents, caches)
        return self.norm(x)  # type: ignore[no-any-return]


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the prediction in nats: logits [N, V] → [N] float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def entropy_contexts(ids: Tensor, documents: Spans, newline_reset: bool) -> Spans:
    """The spans within which the entropy model looks back: documents or, with a reset, lines."""
    if not newline_reset:
        return documents
    newlines = (ids == ord("\n") + OFFSET).nonzero().flatten() + 1
    cuts = sorted({*documents.offsets, *newlines.tolist()})
    return Spans.from_lengths([end - start for start, end in pairwise(cuts)], ids.device)


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
