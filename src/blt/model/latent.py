"""Global latent transformer: the large model, over patches (paper §3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from blt.model.config import Config
from blt.model.layers import KeyValueCache, Linear, Transformer
from blt.model.packing import Spans


class GlobalTransformer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.cross_attention_k * config.local_dim
        self.projection = (
            nn.Identity() if width == config.global_dim else Linear(width, config.global_dim)
        )
        self.transformer = Transformer(
            config.global_dim,
            config.global_heads,
            config.global_layers,
            config.global_ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            rope_scaling=config.global_rope_scaling,
        )

    def forward(
        self, patches: Tensor, spans: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """patches [P, k * d] → [P, global_dim]."""
        return self.transformer(self.projection(patches), spans, caches)
