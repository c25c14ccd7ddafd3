"""Whole prompts through a compiled forward, which hands out what caches are to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blt.generate.steps import KeysValues
from blt.generate.weights import of_many_rows
from blt.model import kernels
from blt.model.blt import ByteLatentTransformer
from blt.model.compiling import compiled_function, prepared
from blt.model.language import ByteModel
from blt.model.layers import Transformer
from blt.model.packing import PackedBatch, Spans
from blt.model.transformer import CausalTransformer


class Kept:
    """Takes a cache's place in a layer: a graph cannot write into rows that it does not know."""

    def __init__(self, transformer: Transformer, spans: Spans) -> None:
        self.transformer, self.spans = transformer, spans

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, H, D]
        self.new = torch.stack((k, v))  # [2, N, H, D]
        return kernels.packed_attention(q, k, v, self.spans, self.transformer.window)


class ReadBytes(NamedTuple):
    """What a byte transformer said about documents, end to end."""

    logits: Tensor  # [N, 260]
    layers: Tensor  # [layers, 2, N, H, D] keys and values


class ReadPatches(NamedTuple):
    """What a Byte Latent Transformer said about documents, end to end."""

    logits: Tensor  # [N, 260]
    x: Tensor  # [N, d] encoder states
    seen: KeysValues  # of all patches
    encoder: Tensor  # [layers, 2, N, H, D] keys and values
    latent: Tensor  # [layers, 2, P, H, D]
    decoder: Tensor  # [layers, 2, N, H, D]


class CompiledForward:
    """The forward of whole documents, as graphs for any lengths and patches.

    Args:
        model: as it is packed for generation; its weights are shared.
    """

    def __init__(self, model: ByteModel) -> None:
        copied = of_many_rows(model)
        byte: CausalTransformer | None
        if isinstance(copied, ByteLatentTransformer):
            self._whole, byte = copied, copied.entropy_model
            self._patches = compiled_function(read_patches, copied)
        else:
            byte = copied
        if byte is not None:
            self._byte, self._bytes = byte, compiled_function(read_bytes, byte)

    def read_patches(self, batch: PackedBatch) -> ReadPatches:
        """Of a Byte Latent Transformer."""
        x = self._whole.encoder.embed(batch)
        return ReadPatches(*self._patches(self._whole, x, batch))

    def read_bytes(self, ids: Tensor, spans: Spans) -> ReadBytes:
        """Of a byte transformer, or of the entropy model: ids [N]."""
        return ReadBytes(*self._bytes(self._byte, self._byte.embed_ids(ids, spans), spans))


def compiled_forward(model: ByteModel) -> CompiledForward | None:
    """The forward of a packed model; None, after a warning, where nothing can be compiled."""
    if not prepared(model.device):
        return None
    return CompiledForward(model)


def read_patches(
    model: ByteLatentTransformer, x: Tensor, batch: PackedBatch
) -> tuple[Tensor, Tensor, KeysValues, Tensor, Tensor, Tensor]:
    """Embeddings of bytes [N, d] → the parts of :class:`ReadPatches`."""
    encoder, decoder = model.encoder, model.decoder
    inside, outside = (_kept(p.transformer, batch.documents) for p in (encoder, decoder))
    between = _kept(model.global_transformer.transformer, batch.patches)
    x = encoder.transformer(x, batch.documents, inside)
    patches = encoder.patches(x, batch.patch_ids, batch.num_patches)
    # A patch that is still open goes through too, last of its document: nobody else sees it.
    seen = decoder.keys_values(model.global_transformer(patches, batch.patches, between))
    logits = decoder.logits(x, seen, batch.decoder_patch_ids, batch.documents, outside)
    return logits.float(), x, seen, _stacked(inside), _stacked(between), _stacked(outside)


def read_bytes(model: CausalTransformer, x: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
    """Embeddings of bytes [N, d] → the parts of :class:`ReadBytes`."""
    caches = _kept(model.transformer, spans)
    return model.head(model.states_of(x, spans, caches)).float(), _stacked(caches)


def _kept(transformer: Transformer, spans: Spans) -> list[Kept]:
    return [Kept(transformer, spans) for _ in range(transformer.depth)]


def _stacked(caches: Sequence[Kept]) -> Tensor:
    return torch.stack([cache.new for cache in caches])
