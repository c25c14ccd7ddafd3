"""A transformer without patches, over bytes or tokens: entropy model and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import ByteTransformerConfig, TokenTransformerConfig, gated_features
from blt.model.embedding import ngrams_of
from blt.model.kernels import RowGroups
from blt.model.layers import KeyValueCache, Linear, RMSNorm, Transformer, init_linear
from blt.model.ngrams import previous_rows
from blt.model.packing import Spans, on
from blt.vocab import OFFSET, PAD

HEAD_ROWS = 8192  # at a time: logits are much wider than the states of a small model
PIECE, GPU_PIECE = 32768, 131072  # bytes whose entropies are computed together


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [N, V], the ids that came [N], PAD where none did → nats, summed  # []."""
    return F.cross_entropy(logits.float(), targets, ignore_index=PAD, reduction="sum")


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
            gated=gated_features(config, config.dim),
            block=config.block,
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = Linear(config.dim, config.num_ids)
        init_linear(table, config.dim)
        self.tables = ngrams_of(config)  # None: no hash n-grams

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(
        self,
        ids: Tensor,
        documents: Spans,
        caches: Sequence[KeyValueCache] | None = None,
        groups: RowGroups | None = None,
        back: list[Tensor] | None = None,
    ) -> Tensor:
        """ids [N] → logits [N, ids of the vocabulary].

        Args:
            groups: of the rows of n-grams, for their sparse gradient.
            back: what n-grams are made of, as :class:`blt.model.embedding.NgramTables` has it;
                None: the ids before, of whole documents.
        """
        x = self.embed_ids(ids, documents, back, groups)
        return self.head(self._states(x, documents, caches))  # type: ignore[no-any-return]

    @torch.no_grad()
    def document_entropies(
        self, documents: Sequence[Tensor], newline_reset: bool = False
    ) -> tuple[Tensor, ...]:
        """Documents, ids [T] each → nats [T] each, of the prediction of the id after each.

        Args:
            documents: on any device, where the entropies come to, all of them in one go.
            newline_reset: look back to the last newline only (paper §4.4).
        """
        spans = Spans.from_lengths([len(ids) for ids in documents])
        ids = torch.cat(list(documents))
        found = self.entropies(ids, entropy_contexts(ids, spans, newline_reset))
        return spans.split(found.to(ids.device))

    def entropies(self, ids: Tensor, documents: Spans) -> Tensor:
        """ids [N] → entropy in nats of the prediction of the id after each  # [N] float32.

        Long documents are read in overlapping pieces, so memory does not grow with their length.
        """
        window = self.config.sliding_window or documents.offsets[-1]
        reach = self.config.layers * (window - 1)  # back, through all layers
        together = PIECE if self.device.type == "cpu" else GPU_PIECE
        trail = None
        if self.tables is not None:
            trail = self.tables.trail(ids, previous_rows(on(documents.positions, ids.device)))
        parts = []
        for pieces in _pieces(documents.offsets, reach, together):
            firsts, kept, ends = np.array(pieces).T
            lengths = ends - firsts
            spans = Spans.from_lengths(lengths)
            rows = spans.positions + torch.from_numpy(np.repeat(firsts, lengths))
            back = None
            if trail is not None and self.tables is not None:
                seen = self.tables.back_from(trail, on(rows, ids.device))
                back = [on(x, self.device) for x in seen]
            read, positions = (
                on(x[on(rows, x.device)], self.device) for x in (ids, documents.positions)
            )
            placed = on(replace(spans, positions=positions), self.device)
            entropies = self._entropies(self.embed_ids(read, placed, back), placed)
            if (kept > firsts).any():
                wanted = np.flatnonzero(rows.numpy() >= np.repeat(kept, lengths))
                entropies = entropies[on(torch.from_numpy(wanted), self.device)]
            parts.append(entropies)
        return torch.cat(parts)

    def _entropies(self, x: Tensor, documents: Spans) -> Tensor:
        states = self._states(x, documents)
        rows = HEAD_ROWS if states.device.type == "cpu" else len(states)
        return torch.cat([entropy(self.head(part)) for part in states.split(rows)])

    def embed_ids(
        self,
        ids: Tensor,
        documents: Spans,
        back: list[Tensor] | None = None,
        groups: RowGroups | None = None,
    ) -> Tensor:
        """Embeddings of ids [N] and of the n-grams that end in them  # [N, d]; or [N, d + e]."""
        x = F.embedding(ids, getattr(self, self.config.embedding_name))
        if self.tables is None:
            return x
        back = self.tables.back(ids, documents.positions) if back is None else back
        return self.tables.joined(x, self.tables(back, groups))

    def _states(
        self, x: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """Embeddings [N, d] → what the output head reads  # [N, d]."""
        if caches is not None:
            return self.states_of(x, documents, caches)
        return self.whole(self, x, documents)  # type: ignore[no-any-return]

    def states_of(
        self, x: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """Embeddings [N, d] → what the output head reads  # [N, d]."""
        return self.norm(self.transformer(x, documents, caches))  # type: ignore[no-any-return]

    # Called with the model itself, so that a copy of the model runs as the copy.
    whole = staticmethod(states_of)  # or what it was compiled to: blt.model.compiling
    loss = staticmethod(cross_entropy)  # the same


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
    device = documents.positions.device
    return Spans.from_lengths([end - start for start, end in pairwise(cuts)], device)


def _pieces(
    offsets: tuple[int, ...], reach: int, together: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Groups of about ``together`` bytes of (first byte read, first byte kept, end)."""
    group: list[tuple[int, int, int]] = []
    size = 0
    for start, end in pairwise(offsets):
        for kept in range(start, end, together):
            first, stop = max(start, kept - reach), min(kept + together, end)
            group.append((first, kept, stop))
            size += stop - first
            if size >= together:
                yield group
                group, size = [], 0
    if group:
        yield group
