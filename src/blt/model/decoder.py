"""Local decoder: from patches back to the next byte (paper §3.3)."""

from __future__ import annotations

from torch import Tensor, nn

from blt.model.config import Config
from blt.model.cross_attention import BytesFromPatches
from blt.model.layers import Linear, RMSNorm, Transformer
from blt.model.packing import PackedBatch
from blt.vocab import VOCAB_SIZE


class LocalDecoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, self.k = config.local_dim, config.cross_attention_k
        self.patch_projection = Linear(config.global_dim, self.k * dim)
        count = config.decoder_layers if config.decoder_cross_attention == "all" else 1
        self.cross_attention = nn.ModuleList(
            BytesFromPatches(dim, config.local_heads, config.norm_eps) for _ in range(count)
        )
        self.transformer = Transformer(
            dim,
            config.local_heads,
            config.decoder_layers,
            config.decoder_ff_dim,
            rope_theta=config.rope_theta,
            eps=config.norm_eps,
            window=config.sliding_window,
        )
        self.norm = RMSNorm(dim, config.norm_eps)
        self.head = Linear(dim, VOCAB_SIZE)

    def forward(self, x: Tensor, patches: Tensor, batch: PackedBatch) -> Tensor:
        """Byte states x [N, d], global output [P, global_dim] → logits [N, 260]."""
        patches = self.patch_projection(patches).unflatten(-1, (self.k, -1))  # [P, k, d]
        rope = self.transformer.rope(batch.documents)
        delta = None  # the residual stream is x + delta
        for index, layer in enumerate(self.transformer.layers):
            if index < len(self.cross_attention):
                x, delta = self.cross_attention[index](x, delta, patches, batch.decoder_patch_ids)
            x, delta = layer(x, delta, rope, batch.documents)
        return self.head(self.norm.add(x, delta)[1])
