"""The steps of :mod:`blt.generate.steps` in C++; those of many rows go through PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from blt.generate import cpp
from blt.generate.caches.layout import CacheLayers
from blt.generate.cpp.products import (
    KINDS,
    MAX_NATIVE_ROWS,
    Kept,
    address,
    library,
    pointer,
    threads,
)
from blt.generate.steps import Back, BLTSteps, ByteSteps, Caches, KeysValues
from blt.model.blt import ByteLatentTransformer, LocalDecoder, LocalEncoder
from blt.model.cross_attention import BytesFromPatches, PatchesFromBytes
from blt.model.layers import Transformer, TransformerLayer
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer
from blt.vocab import VOCAB_SIZE


class Stack:
    """A stack of layers, with what it reads from and writes to.

    Args:
        transformer: the layers.
        crossings: cross-attentions before the first layers, of a decoder.
        **ends: ``embedding`` and ``projection`` to read with, ``norm`` and ``head`` to write with.
    """

    def __init__(
        self,
        kept: Kept,
        transformer: Transformer,
        crossings: Sequence[BytesFromPatches] = (),
        **ends: Any,
    ) -> None:
        self.kept, self.dim, block = kept, transformer.dim, transformer.block
        self.has_head = "head" in ends
        layers, eps = (cpp.Layer * transformer.depth)(), 0.0
        for index, layer in enumerate(transformer.layers):
            assert isinstance(layer, TransformerLayer)
            eps = layer.attention_norm.eps
            self._fill(layers[index], layer, crossings[index] if index < len(crossings) else None)
        self.native = cpp.Stack(
            layers=kept.struct(layers),
            frequencies=kept.tensor(transformer.frequencies(torch.device("cpu"))),
            depth=transformer.depth,
            dim=self.dim,
            heads=transformer.heads,
            kv_heads=transformer.kv_heads,
            head_dim=transformer.head_dim,
            norm_width=transformer.head_dim if block.qk_norm == "head" else 0,
            norms_after=block.norm == "after",
            cross_heads=crossings[0].heads if crossings else 1,
            window=transformer.window or 0,
            eps=eps,
            **ends,
        )

    def _fill(
        self, out: cpp.Layer, layer: TransformerLayer, cross: BytesFromPatches | None
    ) -> None:
        kept = self.kept
        out.attention_norm, out.ff_norm = kept.norm(layer.attention_norm), kept.norm(layer.ff_norm)
        out.qkv, out.attention_out = (
            kept.weight(layer.attention.qkv),
            kept.weight(layer.attention.out),
        )
        out.gate_up, out.down = kept.weight(layer.ff.gate_up), kept.weight(layer.ff.down)
        attention = layer.attention
        if attention.qkv_bias is not None:
            out.qkv_bias = kept.tensor(attention.qkv_bias.float())
        if attention.qk_norm != "none":
            out.q_norm, out.k_norm = kept.norm(attention.q_norm), kept.norm(attention.k_norm)
        if cross is not None:
            out.cross_norm = kept.norm(cross.query_norm)
            out.cross_query, out.cross_out = kept.weight(cross.query), kept.weight(cross.out)

    def run(
        self,
        source: Tensor,
        each: int,
        spans: Spans,
        caches: CacheLayers,
        entropies: Tensor | None = None,
        seen: Tensor | None = None,
        seen_ids: Tensor | None = None,
    ) -> Tensor:
        """States [N, in], or ids of texts with ``each`` new ones → states [N, d] or logits."""
        positions, where = spans.positions, caches.layout
        rows, source = len(positions), source.contiguous()
        x = torch.empty(rows, self.dim, dtype=torch.float32, device="cpu")
        logits = (
            torch.empty(rows, VOCAB_SIZE, dtype=torch.float32, device="cpu")
            if self.has_head
            else None
        )
        each_row = {"positions": positions, "at": where.at, "text": where.text}
        for name, tensor in each_row.items():
            if tensor.numel() != rows:
                raise TypeError(f"{name} of {tensor.numel()} rows, not of {rows}")
        job = cpp.Job(
            rows,
            address(source, torch.float32 if source.is_floating_point() else torch.int64),
            each,
            address(x, torch.float32),
            _address(logits, torch.float32),
            _address(entropies, torch.float32),
            address(positions, torch.int64),
            address(where.at, torch.int64),
            _address(where.starts, torch.int64),
            address(where.text, torch.int64),
            address(where.addresses, torch.int64),
            address(where.capacity, torch.int64),
            caches.first,
            KINDS[where.dtype],
        )
        if seen is not None and seen_ids is not None:
            job.seen, job.seen_stride = address(seen, torch.float32), seen.stride(1)
            job.seen_ids, job.slices = address(seen_ids, torch.int64), seen.shape[3]
        library().blt_run(ctypes.byref(self.native), ctypes.byref(job), threads())
        return x if logits is None else logits


def _address(tensor: Tensor | None, dtype: torch.dtype) -> int | None:
    return None if tensor is None else address(tensor, dtype)


class NativeByteSteps(ByteSteps):
    """The steps of a byte transformer, in C++."""

    def __init__(self, model: CausalTransformer) -> None:
        super().__init__(model)
        kept, self.gated = Kept(), model.transformer.gate is not None
        # With tables of n-grams PyTorch embeds, and C++ does the rest.
        ids: dict[str, Any] = {} if model.tables else {"embedding": kept.bytes(model.byte)}
        self.stack = Stack(
            kept,
            model.transformer,
            norm=kept.norm(model.norm),
            head=kept.weight(model.head),
            **ids,
        )

    def logits(self, ids: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        if self._in_pytorch(ids, caches):
            return super().logits(ids, spans, caches, back)
        assert isinstance(caches, CacheLayers)
        return self.stack.run(self._source(ids, spans, back), 1, spans, caches)

    def entropies(self, ids: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        if self._in_pytorch(ids, caches):
            return super().entropies(ids, spans, caches, back)
        assert isinstance(caches, CacheLayers)
        entropies = torch.empty(len(ids), dtype=torch.float32, device="cpu")
        self.stack.run(self._source(ids, spans, back), 1, spans, caches, entropies)
        return entropies

    def _in_pytorch(self, ids: Tensor, caches: Caches) -> bool:
        """Other caches, many rows, or a gate within the layers: only its products are in C++."""
        return not isinstance(caches, CacheLayers) or len(ids) > MAX_NATIVE_ROWS or self.gated

    def _source(self, ids: Tensor, spans: Spans, back: Back) -> Tensor:
        """What C++ reads: ids, or their embeddings."""
        return ids if self.model.tables is None else self.model.embed_ids(ids, spans, back).float()


def fits(model: nn.Module) -> bool:
    """Are the steps of a BLT written in C++? They need cross-attention on both sides."""
    return isinstance(model, ByteLatentTransformer) and bool(
        model.encoder.cross_attention and model.decoder.cross_attention
    )


class NativeBLTSteps(BLTSteps):
    """The steps of a Byte Latent Transformer, in C++."""

    def __init__(self, model: ByteLatentTransformer) -> None:
        super().__init__(model)
        self.kept = kept = Kept()
        encoder, decoder, middle = model.encoder, model.decoder, model.global_transformer
        # Tables in other precisions stay where they are: they are too large to be copied.
        float32 = encoder.embedding.ngram.dtype is torch.float32
        self.embeds = float32 and not encoder.embedding.fold
        table: dict[str, Any] = {"embedding": kept.ngrams(encoder.embedding)} if self.embeds else {}
        self.encoder = Stack(kept, encoder.transformer, **table)
        projection: dict[str, Any] = {}
        if not isinstance(middle.projection, nn.Identity):
            projection["projection"] = kept.struct(kept.weight(middle.projection))
        self.middle = Stack(kept, middle.transformer, **projection)
        crossings = [c for c in decoder.cross_attention if isinstance(c, BytesFromPatches)]
        ends = {"norm": kept.norm(decoder.norm), "head": kept.weight(decoder.head)}
        self.decoder = Stack(kept, decoder.transformer, crossings, **ends)
        self.pooling = _pooling(kept, encoder)
        self.crossings = _crossings(kept, decoder, crossings)

    def encode(self, windows: Tensor, spans: Spans, caches: Caches, back: Back = None) -> Tensor:
        rows = len(spans.positions)
        gated = self.model.encoder.transformer.gate is not None
        if not isinstance(caches, CacheLayers) or rows > MAX_NATIVE_ROWS or gated:
            return super().encode(windows, spans, caches, back)
        if not self.embeds:
            return self.encoder.run(self.embed(windows, back).float(), 1, spans, caches)
        return self.encoder.run(windows, rows // len(windows), spans, caches)

    def pool(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        if max(len(x), self.pooling.slices * len(sizes)) > MAX_NATIVE_ROWS:
            return super().pool(x, sizes)
        x, ends = (
            x.float().contiguous(),
            torch.tensor(list(accumulate(sizes)), dtype=torch.int64, device="cpu"),
        )
        y = torch.empty(
            len(sizes), self.pooling.slices * self.pooling.dim, dtype=torch.float32, device="cpu"
        )
        count = ctypes.c_int64(len(sizes))
        library().blt_pool(
            ctypes.byref(self.pooling),
            pointer(x),
            pointer(ends, torch.int64),
            count,
            pointer(y),
            threads(),
        )
        return y

    def globally(self, patches: Tensor, spans: Spans, caches: Caches) -> Tensor:
        if not isinstance(caches, CacheLayers) or len(patches) > MAX_NATIVE_ROWS:
            return super().globally(patches, spans, caches)
        return self.middle.run(patches, 1, spans, caches)

    def keys_values(self, latents: Tensor) -> KeysValues:
        shape = self.crossings
        if shape.slices * len(latents) > MAX_NATIVE_ROWS:
            return super().keys_values(latents)
        latents = latents.float().contiguous()
        seen = torch.empty(
            shape.count, 2, len(latents), shape.slices, shape.dim, dtype=torch.float32, device="cpu"
        )
        count, stride = ctypes.c_int64(len(latents)), ctypes.c_int64(seen.stride(1))
        library().blt_see(
            ctypes.byref(shape), pointer(latents), count, pointer(seen), stride, threads()
        )
        return [(k, v) for k, v in seen]

    def decode(
        self, x: Tensor, seen: Tensor, seen_ids: Tensor, spans: Spans, caches: Caches
    ) -> Tensor:
        if not isinstance(caches, CacheLayers) or len(x) > MAX_NATIVE_ROWS:
            return super().decode(x, seen, seen_ids, spans, caches)
        return self.decoder.run(x.float(), 1, spans, caches, seen=seen, seen_ids=seen_ids)


def _pooling(kept: Kept, encoder: LocalEncoder) -> cpp.Pooling:
    cross = encoder.cross_attention[-1]
    assert isinstance(cross, PatchesFromBytes)
    return cpp.Pooling(
        kept.norm(cross.query_norm),
        kept.norm(cross.key_value_norm),
        kept.weight(encoder.patch_projection),
        kept.weight(cross.query),
        kept.weight(cross.key_value),
        kept.weight(cross.out),
        encoder.embedding.byte.shape[1],
        cross.heads,
        encoder.k,
        cross.query_norm.eps,
    )


def _crossings(
    kept: Kept, decoder: LocalDecoder, crossings: Sequence[BytesFromPatches]
) -> cpp.Crossings:
    layers = (cpp.Crossing * len(crossings))()
    for layer, cross in zip(layers, crossings, strict=True):
        layer.norm, layer.key_value = kept.norm(cross.key_value_norm), kept.weight(cross.key_value)
    return cpp.Crossings(
        kept.struct(layers),
        kept.weight(decoder.patch_projection),
        len(crossings),
        decoder.transformer.dim,
        decoder.k,
        crossings[0].key_value_norm.eps,
    )
