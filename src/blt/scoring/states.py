"""What every layer of a model makes of a text, for those who look inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from blt.model.blt import ByteLatentTransformer
from blt.model.layers import OnLayer, Transformer
from blt.model.packing import Laid, PackedBatch
from blt.model.transformer import CausalTransformer


@dataclass(frozen=True)
class LayerStates:
    """Hidden states of a byte or token model, of one document of T ids.

    Attributes:
        ids: as the model read them, BOS first  # [T] int64
        layers: the embeddings, then the residual stream after each layer  # 1 + layers of [T, d]
        final: normed, as the output head reads it: what predicts the next id  # [T, d]
    """

    ids: Tensor
    layers: tuple[Tensor, ...]
    final: Tensor


@dataclass(frozen=True)
class BLTStates:
    """Hidden states of a BLT, of one document of T ids in P patches.

    BOS is position 0, and patch 0 alone.

    Attributes:
        ids: as the model read them, BOS first  # [T] int64
        patch_ids: patch that each position lies in  # [T] int64
        decoder_patch_ids: patch whose global output each position sees  # [T] int64
        encoder: the embeddings, then the bytes' residual stream after each encoder layer
            # 1 + encoder_layers of [T, local_dim]
        patches: what the global transformer reads, then its residual stream after each layer
            # 1 + global_layers of [P, global_dim]
        decoder: what the decoder reads of bytes, the last of ``encoder``, then its residual stream
            after each layer  # 1 + decoder_layers of [T, local_dim]
        final: normed, as the output head reads it: what predicts the next byte  # [T, local_dim]
    """

    ids: Tensor
    patch_ids: Tensor
    decoder_patch_ids: Tensor
    encoder: tuple[Tensor, ...]
    patches: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]
    final: Tensor


States = BLTStates | LayerStates


@torch.no_grad()
def hidden_states(lm: Any, texts: Sequence[bytes]) -> list[States]:
    """See :meth:`blt.LanguageModel.hidden_states`; a list of texts, read in one forward."""
    batch = lm.lay_out([lm.ids_of(text) for text in texts])
    if isinstance(lm, ByteLatentTransformer):
        return list(_blt_states(lm, batch))
    return list(_layer_states(lm, batch))


def _layer_states(model: CausalTransformer, batch: PackedBatch | Laid) -> list[LayerStates]:
    layers: list[Tensor] = []
    final, offsets = read_layers(model, batch, layers.append), batch.documents.offsets
    return [
        LayerStates(batch.ids[a:b], _rows(layers, a, b), final[a:b]) for a, b in pairwise(offsets)
    ]


def read_layers(
    model: CausalTransformer, batch: PackedBatch | Laid, on_layer: OnLayer | None = None
) -> Tensor:
    """What the output head reads of every id  # [N, d]."""
    x = model.embed_ids(batch.ids, batch.documents)
    if on_layer is not None:
        on_layer(_alone(model.transformer, x))
    return model.norm(model.transformer(x, batch.documents, on_layer=on_layer))  # type: ignore[no-any-return]


def _blt_states(model: ByteLatentTransformer, batch: PackedBatch | Laid) -> list[BLTStates]:
    encoded: list[Tensor] = []
    patched: list[Tensor] = []
    decoded: list[Tensor] = []
    read = read_patches(model, batch, encoded.append, patched.append)
    final, cut = decoder_states(model, read, decoded.append), read.batch
    pairs = zip(pairwise(cut.documents.offsets), pairwise(cut.patches.offsets), strict=True)
    return [
        BLTStates(
            cut.ids[a:b],
            cut.patch_ids[a:b] - first,
            cut.decoder_patch_ids[a:b] - first,
            _rows(encoded, a, b),
            _rows(patched, first, last),
            _rows(decoded, a, b),
            final[a:b],
        )
        for (a, b), (first, last) in pairs
    ]


@dataclass(frozen=True)
class PatchesRead:
    """What a BLT has once its global transformer is done."""

    batch: PackedBatch
    bytes: Tensor  # of the encoder  # [N, local_dim]
    latents: Tensor  # output of the global transformer, as the decoder sees it  # [P, global_dim]
    confidence: Tensor | None  # a router's  # [N]


def read_patches(
    model: ByteLatentTransformer,
    batch: PackedBatch | Laid,
    on_encoder: OnLayer | None = None,
    on_global: OnLayer | None = None,
) -> PatchesRead:
    """Run encoder and global transformer; call on what each begins with, and on every layer's."""
    encoder, latent = model.encoder, model.global_transformer
    x = encoder.embed(batch)
    if on_encoder is not None:
        on_encoder(_alone(encoder.transformer, x))
    x = encoder.transformer(x, batch.documents, on_layer=on_encoder)
    routes = None if model.router is None else model.router(x, batch)
    cut = batch if routes is None else routes.batch
    assert isinstance(cut, PackedBatch)
    patches = latent.projection(encoder.patches(x, cut.patch_ids, cut.num_patches))
    if on_global is not None:
        on_global(patches)
    latents = latent.transformer(patches, cut.patches, on_layer=on_global)
    if routes is None:
        return PatchesRead(cut, x, latents, None)
    return PatchesRead(cut, x, routes.smoothed(latents), routes.confidence)


def decoder_states(
    model: ByteLatentTransformer, read: PatchesRead, on_layer: OnLayer | None = None
) -> Tensor:
    """What the output head reads of every byte  # [N, local_dim]."""
    cut, seen = read.batch, model.decoder.keys_values(read.latents)
    if on_layer is not None:
        on_layer(read.bytes)
    ids, spans = cut.decoder_patch_ids, cut.documents
    return model.decoder.states(
        read.bytes, seen, ids, spans, confidence=read.confidence, on_layer=on_layer
    )


def _alone(transformer: Transformer, x: Tensor) -> Tensor:
    """Embeddings without the hash n-grams that a gate adds after the first layer  # [N, d]."""
    return x[:, : transformer.dim]


def _rows(layers: Sequence[Tensor], start: int, end: int) -> tuple[Tensor, ...]:
    return tuple(layer[start:end] for layer in layers)
