"""A transformer over tokens, Llama style: the baseline that byte models are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import TokenTransformerConfig
from blt.model.layers import KeyValueCache, Linear, RMSNorm, Transformer, init_linear
from blt.model.packing import Spans

SPECIAL = 2  # BOS and EOS, after the tokenizer's own tokens


class TokenTransformer(nn.Module):
    def __init__(self, config: TokenTransformerConfig) -> None:
        super().__init__()
        self.config = config
        size = config.vocab_size + SPECIAL
        self.embedding = nn.Parameter(torch.empty(size, config.dim, dtype=torch.float32))
        self.transformer = Transformer(
            config.dim,
            config.heads,
            config.layers,
            config.ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            rope_scaling=config.rope_scaling,
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = Linear(config.dim, size)
        init_linear(self.embedding, config.dim)

    def forward(
        self, ids: Tensor, documents: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """Token ids [M] → logits [M, vocab_size + 2]."""
        x = self.transformer(F.embedding(ids, self.embedding), documents, caches)
        return self.head(self.norm(x))  # type: ignore[no-any-return]
