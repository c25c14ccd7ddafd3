"""A byte-level transformer without patches: the entropy model, and the flat baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import ByteTransformerConfig
from blt.model.layers import Linear, RMSNorm, Transformer, init_linear
from blt.model.packing import Spans
from blt.vocab import VOCAB_SIZE


class ByteTransformer(nn.Module):
    """Causal language model over bytes with a sliding window (paper §2.3, §4.2)."""

    def __init__(self, config: ByteTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.byte = nn.Parameter(torch.empty(VOCAB_SIZE, config.dim))
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

    def forward(self, ids: Tensor, documents: Spans) -> Tensor:
        """ids [N] → logits [N, 260]."""
        x = self.transformer(F.embedding(ids, self.byte), documents)
        return self.head(self.norm(x))

    def entropies(self, ids: Tensor, documents: Spans) -> Tensor:
        """ids [N] → entropy in nats of the prediction of the byte after each  # [N] float32."""
        log_p = torch.log_softmax(self(ids, documents).float(), dim=-1)
        return -(log_p.exp() * log_p).sum(-1)
