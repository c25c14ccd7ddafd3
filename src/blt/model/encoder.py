"""Local encoder: from bytes to patches (paper §3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from blt.model.config import Config
from blt.model.cross_attention import PatchesFromBytes, segment_max
from blt.model.embedding import ByteEmbedding
from blt.model.layers import Linear, Transformer
from blt.model.packing import PackedBatch


class LocalEncoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, self.k = config.local_dim, config.cross_attention_k
        self.embedding = ByteEmbedding(
            dim, config.hash_ngram_sizes, config.hash_functions, config.hash_rows
        )
        self.transformer = Transformer(
            dim,
            config.local_heads,
            config.encoder_layers,
            config.encoder_ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            window=config.sliding_window,
        )
        self.patch_projection = Linear(dim, self.k * dim)
        # Patch states start anew from the bytes after every layer, so of "all" only the last
        # cross-attention reaches the output; the others are kept for released checkpoints.
        self.cross_attention = nn.ModuleList(
            PatchesFromBytes(dim, config.local_heads, config.norm_eps)
            for _ in range(config.encoder_crosses)
        )

    def forward(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Returns byte states [N, d] and patch states [P, k * d]."""
        x = self.transformer(self.embedding(batch.ids, batch.documents.positions), batch.documents)
        return x, self.patches(x, batch.patch_ids, batch.num_patches)

    def patches(self, x: Tensor, patch_ids: Tensor, num_patches: int) -> Tensor:
        """Byte states x [N, d] and the patch of each [N] → patch states [P, k * d]."""
        pooled = segment_max(x, patch_ids, num_patches)
        patches = self.patch_projection(pooled).unflatten(-1, (self.k, -1))  # [P, k, d]
        if self.cross_attention:
            patches = patches + self.cross_attention[-1](patches, x, patch_ids)
        return patches.flatten(1).to(x.dtype)  # residual streams share one precision
