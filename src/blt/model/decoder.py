"""Local decoder: from patches back to the next byte (paper §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from blt.model.config import Config
from blt.model.cross_attention import BytesFromPatches, gather
from blt.model.layers import KeyValueCache, Linear, RMSNorm, Transformer
from blt.model.packing import PackedBatch, Spans
from blt.vocab import VOCAB_SIZE


class LocalDecoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, count = config.local_dim, config.decoder_crosses
        self.k = config.cross_attention_k if count else 1
        self.patch_projection = Linear(config.global_dim, self.k * dim)
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
        seen = self.keys_values(patches)
        return self.logits(x, seen, batch.decoder_patch_ids, batch.documents)

    def keys_values(self, patches: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Global output [P, global_dim] → k and v [P, k, d] of each cross-attention.

        Without any: one pair, of which v [P, 1, d] is what the patch adds to its bytes.
        """
        patches = self.patch_projection(patches).unflatten(-1, (self.k, -1))  # [P, k, d]
        if not self.cross_attention:
            return [(patches, patches)]
        return [
            layer.keys_values(patches)
            for layer in self.cross_attention
            if isinstance(layer, BytesFromPatches)
        ]

    def logits(
        self,
        x: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
        patch_ids: Tensor,
        spans: Spans,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """Byte states x [N, d], each seeing patch ``patch_ids`` [N] of ``seen`` → [N, 260]."""
        rope = self.transformer.rope(spans)
        delta = None  # the residual stream is x + delta
        if not self.cross_attention:
            delta, seen = gather(seen[0][1][:, 0], patch_ids).to(x.dtype), ()
        for index, layer in enumerate(self.transformer.layers):
            cache = None if caches is None else caches[index]
            if index < len(seen):
                x, delta = self.cross_attention[index](x, delta, *seen[index], patch_ids)
            x, delta = layer(x, delta, rope, spans, cache)
        return self.head(self.norm.add(x, delta)[1])  # type: ignore[no-any-return]
