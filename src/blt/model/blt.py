"""The Byte Latent Transformer, arXiv 2412.09871, figure 2: three parts, and the whole.

bytes ──► entropy model ──► patch boundaries
  │                               │
  └─► local encoder ──► patches ──┘
         │                 │
         │        global latent transformer
         │                 │
         └─► local decoder ◄──┘ ──► next byte
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blt.model.config import Config, gated_features
from blt.model.cross_attention import BytesFromPatches, PatchesFromBytes
from blt.model.embedding import ByteEmbedding
from blt.model.kernels import gather, segment_max
from blt.model.layers import KeyValueCache, Linear, OnLayer, RMSNorm, Transformer
from blt.model.packing import Laid, PackedBatch, Spans, end_to_end
from blt.model.routing import Router, Routes
from blt.model.transformer import CausalTransformer, cross_entropy
from blt.patching.patcher import Patcher
from blt.vocab import VOCAB_SIZE


def local_transformer(
    config: Config, layers: int, ff_dim: int, gated: int | None = None
) -> Transformer:
    """Layers over bytes, each of which sees a window."""
    return Transformer(
        config.local_dim,
        config.local_heads,
        layers,
        ff_dim,
        rope_theta=config.rope_theta,
        eps=config.norm_eps,
        window=config.sliding_window,
        gated=gated,
    )


class LocalEncoder(nn.Module):
    """From bytes to patches (paper §3.2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, self.k = config.local_dim, config.cross_attention_k
        gated = gated_features(config, dim)
        self.embedding = ByteEmbedding(
            dim,
            config.hash_ngram_sizes,
            config.hash_functions,
            config.hash_rows,
            config.hash_fold,
            gated,
        )
        self.transformer = local_transformer(
            config, config.encoder_layers, config.encoder_ff_dim, gated
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
        x = self.transformer(self.embed(batch), batch.documents)
        return x, self.patches(x, batch.patch_ids, batch.num_patches)

    def embed(self, batch: PackedBatch | Laid) -> Tensor:
        """Embeddings of bytes and of the n-grams that end in them  # [N, d]; or [N, d + e]."""
        return self.embedding(batch.ids, batch.documents.positions, batch.ngrams)  # type: ignore[no-any-return]

    def patches(self, x: Tensor, patch_ids: Tensor, num_patches: int) -> Tensor:
        """Byte states x [N, d] and the patch of each [N] → patch states [P, k * d]."""
        pooled = segment_max(x, patch_ids, num_patches)
        patches = self.patch_projection(pooled).unflatten(-1, (self.k, -1))  # [P, k, d]
        if self.cross_attention:
            patches = patches + self.cross_attention[-1](patches, x, patch_ids)
        return patches.flatten(1).to(x.dtype)  # residual streams share one precision


class GlobalTransformer(nn.Module):
    """The large model, over patches (paper §3.1)."""

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
            block=config.global_block,
        )

    def forward(
        self, patches: Tensor, spans: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """patches [P, k * d] → [P, global_dim]."""
        return self.transformer(self.projection(patches), spans, caches)


class LocalDecoder(nn.Module):
    """From patches back to the next byte (paper §3.3)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, count = config.local_dim, config.decoder_crosses
        self.k = config.cross_attention_k if count else 1
        self.patch_projection = Linear(config.global_dim, self.k * dim)
        self.cross_attention = nn.ModuleList(
            BytesFromPatches(dim, config.local_heads, config.norm_eps) for _ in range(count)
        )
        self.transformer = local_transformer(config, config.decoder_layers, config.decoder_ff_dim)
        self.norm = RMSNorm(dim, config.norm_eps)
        self.head = Linear(dim, VOCAB_SIZE)

    def forward(
        self, x: Tensor, patches: Tensor, batch: PackedBatch, confidence: Tensor | None = None
    ) -> Tensor:
        """Byte states x [N, d], global output [P, global_dim] → logits [N, 260]."""
        seen, ids = self.keys_values(patches), batch.decoder_patch_ids
        return self.logits(x, seen, ids, batch.documents, confidence=confidence)

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
        confidence: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`states`, but logits  # [N, 260]."""
        return self.head(self.states(x, seen, patch_ids, spans, caches, confidence))  # type: ignore[no-any-return]

    def states(
        self,
        x: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
        patch_ids: Tensor,
        spans: Spans,
        caches: Sequence[KeyValueCache] | None = None,
        confidence: Tensor | None = None,
        on_layer: OnLayer | None = None,
    ) -> Tensor:
        """Byte states x [N, d], each seeing patch ``patch_ids`` [N] of ``seen`` → what the output
        head reads [N, d].

        ``confidence`` [N] scales what each byte sees.
        """
        rope = self.transformer.rope(spans)
        delta = self.transformer.first_delta(x)  # the residual stream is x + delta
        if not self.cross_attention:
            delta, seen = gather(seen[0][1][:, 0], patch_ids).to(x.dtype), ()
            delta = delta if confidence is None else delta * confidence[:, None].to(x.dtype)
        for index, layer in enumerate(self.transformer.layers):
            cache = None if caches is None else caches[index]
            if index < len(seen):
                x, delta = self.cross_attention[index](
                    x, delta, *seen[index], patch_ids, confidence
                )
            x, delta = layer(x, delta, rope, spans, cache)
            if on_layer is not None:
                on_layer(x + delta)
        return self.norm.add(x, delta)[1]


class ByteLatentTransformer(nn.Module):
    """Logits for the next byte from a packed batch whose patches are already cut, or that a
    router cuts."""

    kind = "blt"
    lookup_table: Tensor | None  # [260 ** order] bool of the rule "lookup"; training fills it

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.entropy_model = (
            CausalTransformer(config.entropy_model) if config.entropy_model else None
        )
        self.encoder = LocalEncoder(config)
        self.router = Router(config) if config.patching.is_learned else None
        self.global_transformer = GlobalTransformer(config)
        self.decoder = LocalDecoder(config)
        if self.entropy_model is not None:
            self.entropy_model.requires_grad_(False)  # it is trained first, and then only cuts
        order = config.patching.lookup_order if config.patching.rule == "lookup" else None
        table = None if order is None else torch.zeros(VOCAB_SIZE**order, dtype=torch.bool)
        self.register_buffer("lookup_table", table)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def patcher(self) -> Patcher:
        """What cuts bytes into patches: the rule, with the entropy model or table it needs."""
        router = None if self.router is None else self
        return Patcher(self.config.patching, self.entropy_model, self.lookup_table, router=router)

    @torch.no_grad()
    def boundary_probabilities(self, documents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Documents, ids [T] each → how likely a patch starts after each byte  # [T] each."""
        assert self.router is not None
        batch = Laid(*end_to_end(documents, self.device))
        x = self.encoder.transformer(self.encoder.embed(batch), batch.documents)
        p = self.router.along(x, batch.documents)
        return batch.documents.split(p.to(documents[0].device))

    def forward(self, batch: PackedBatch | Laid) -> Tensor:
        """N bytes in P patches → logits [N, 260]."""
        return self.whole(self, self.encoder.embed(batch), batch)  # type: ignore[no-any-return]

    def logits_of(self, x: Tensor, batch: PackedBatch | Laid) -> Tensor:
        """Embeddings of bytes [N, d_local] → logits [N, 260]."""
        x = self.encoder.transformer(x, batch.documents)  # [N, d_local]
        if self.router is not None:
            return self.routed(x, self.router(x, batch))
        assert isinstance(batch, PackedBatch)
        return self.decoder(x, self.latents(x, batch), batch)  # type: ignore[no-any-return]

    def latents(self, x: Tensor, batch: PackedBatch) -> Tensor:
        """Encoder states of bytes [N, d_local] → global output [P, d_global]."""
        patches = self.encoder.patches(x, batch.patch_ids, batch.num_patches)  # [P, k * d_local]
        return self.global_transformer(patches, batch.patches)  # type: ignore[no-any-return]

    def routed(self, x: Tensor, routes: Routes) -> Tensor:
        """Encoder states of bytes [N, d_local], whose patches a router cut → logits [N, 260]."""
        latents = routes.smoothed(self.latents(x, routes.batch))
        return self.decoder(x, latents, routes.batch, routes.confidence)  # type: ignore[no-any-return]

    # Called with the model itself, so that a copy of the model runs as the copy.
    whole = staticmethod(logits_of)  # or what it was compiled to: blt.model.compiling
    loss = staticmethod(cross_entropy)  # the same
