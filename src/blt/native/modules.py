"""Modules whose steps of a few rows run in C++; whole documents go through PyTorch as ever."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blt import native
from blt.generate.cache import PatchLayer, RingLayer
from blt.generate.weights import CastLinear, Int8Linear
from blt.model.cross_attention import BytesFromPatches
from blt.model.decoder import LocalDecoder
from blt.model.embedding import PRIMES, ByteEmbedding
from blt.model.layers import KeyValueCache, RMSNorm, Transformer, TransformerLayer
from blt.model.packing import PackedBatch, Spans

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
MAX_NATIVE_ROWS = 160  # in one step; more are PyTorch's
MAX_THREADS = 16  # more wait for each other longer than they work


def weight_of(linear: nn.Module) -> tuple[native.Weight, Tensor]:
    """The weight of a module as C++ reads it, and its scale, which must be kept alive."""
    assert isinstance(linear, CastLinear | Int8Linear)
    weight, scale = linear.weight, torch.empty(0)
    if isinstance(linear, Int8Linear):
        scale = linear.scale.float()
    pointer = scale.data_ptr() if len(scale) else None
    return native.Weight(weight.data_ptr(), pointer, KINDS[weight.dtype], *weight.shape), scale


class NativeLinear(nn.Module):
    """Products of a few rows in C++; of many rows by ``inner``, which holds the weights."""

    def __init__(self, inner: CastLinear | Int8Linear) -> None:
        super().__init__()
        self.inner, self.features = inner, len(inner.weight)
        self.native, self._scale = weight_of(inner)

    def forward(self, x: Tensor) -> Tensor:  # [..., d] -> [..., f]
        rows = x.numel() // x.shape[-1]
        if rows > MAX_NATIVE_ROWS:
            return self.inner(x)  # type: ignore[no-any-return]
        x = x.float().contiguous()
        y = x.new_empty(*x.shape[:-1], self.features)
        library().blt_product(
            ctypes.byref(self.native),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_int64(rows),
            ctypes.c_void_p(y.data_ptr()),
            _threads(),
        )
        return y


class NativeNorm(nn.Module):
    """RMSNorm of a few rows in C++."""

    def __init__(self, inner: RMSNorm) -> None:
        super().__init__()
        self.inner, self.eps = inner, ctypes.c_float(inner.eps)
        self.add = inner.add
        self._weight = inner.weight.detach().float().contiguous()

    def forward(self, x: Tensor) -> Tensor:  # [..., d]
        rows = x.numel() // x.shape[-1]
        if rows > MAX_NATIVE_ROWS:
            return self.inner(x)  # type: ignore[no-any-return]
        x = x.float().contiguous()
        y = torch.empty_like(x)
        library().blt_norm(
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_void_p(self._weight.data_ptr()),
            self.eps,
            ctypes.c_int64(rows),
            ctypes.c_int64(x.shape[-1]),
            ctypes.c_void_p(y.data_ptr()),
        )
        return y


class NativeEmbedding(nn.Module):
    """Embeddings of a few bytes and their n-grams in C++."""

    def __init__(self, inner: ByteEmbedding) -> None:
        super().__init__()
        self.inner, self.reach = inner, inner.reach
        self._sizes = torch.tensor(inner.sizes, dtype=torch.int64)
        self._primes = torch.tensor(PRIMES, dtype=torch.int64)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.inner(ids, positions)  # type: ignore[no-any-return]

    def read(self, back: list[Tensor]) -> Tensor:
        """As :meth:`ByteEmbedding.read`; both tables must be float32."""
        inner, rows = self.inner, len(back[0])
        if rows > MAX_NATIVE_ROWS:
            return inner.read(back)
        ids = torch.stack(back)  # [reach, N]
        y = torch.empty(rows, inner.byte.shape[1])
        addresses = (ids, inner.byte, inner.ngram, self._sizes, self._primes, y)
        at = [ctypes.c_void_p(tensor.data_ptr()) for tensor in addresses]
        dim, count, functions, hash_rows = (
            ctypes.c_int64(n) for n in (y.shape[1], len(inner.sizes), inner.functions, inner.rows)
        )
        library().blt_embed(
            at[0], ctypes.c_int64(rows), at[1], at[2], dim, at[3], count, at[4],
            functions, hash_rows, at[5],
        )  # fmt: skip
        return y


def library() -> ctypes.CDLL:
    loaded = native.library()
    assert loaded is not None
    return loaded


def _threads() -> ctypes.c_int64:
    return ctypes.c_int64(min(torch.get_num_threads(), MAX_THREADS))


class NativeStack:
    """Weights of a stack of layers as C++ reads them, shared with the modules."""

    def __init__(self, transformer: Transformer, crossings: Sequence[BytesFromPatches]) -> None:
        self._kept: list[Tensor] = []  # tensors that only C++ refers to
        pairs = torch.arange(0, transformer.head_dim, 2, dtype=torch.float32)
        layers = (native.Layer * transformer.depth)()
        for index, layer in enumerate(_layers(transformer)):
            out = layers[index]
            out.attention_norm = self._vector(layer.attention_norm.weight)
            out.ff_norm = self._vector(layer.ff_norm.weight)
            out.qkv = self._weight(layer.attention.qkv)
            out.attention_out = self._weight(layer.attention.out)
            out.gate_up = self._weight(layer.ff.gate_up)
            out.down = self._weight(layer.ff.down)
            if index < len(crossings):
                cross = crossings[index]
                out.cross_norm = self._vector(cross.query_norm.weight)
                out.cross_query = self._weight(cross.query)
                out.cross_out = self._weight(cross.out)
        first = _layers(transformer)[0]
        self.depth = transformer.depth
        self.stack = native.Stack(
            layers,
            self._vector(1.0 / transformer.rope_theta ** (pairs / transformer.head_dim)),
            transformer.depth,
            transformer.heads * transformer.head_dim,
            transformer.heads,
            crossings[0].heads if crossings else 1,
            first.attention_norm.eps,
        )
        self._layers = layers

    def _vector(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    def _weight(self, linear: nn.Module) -> native.Weight:
        weight, scale = weight_of(linear)
        self._kept += [scale]
        return weight

    def run(
        self,
        x: Tensor,
        positions: Tensor,
        caches: Sequence[KeyValueCache],
        seen: Sequence[tuple[Tensor, Tensor]] = (),
        seen_ids: Tensor | None = None,
    ) -> Tensor:
        """x [N, d] of a step through all layers → [N, d] float32."""
        x = x.float().clone(memory_format=torch.contiguous_format)
        step = [cache for cache in caches if isinstance(cache, RingLayer | PatchLayer)]
        where, positions = step[0].step.layout, positions.contiguous()
        cache_pointers = _pointers([at for cache in step for at in cache.pointers])
        seen_pointers = _pointers([tensor.data_ptr() for pair in seen for tensor in pair])
        job = native.Job(
            len(x),
            x.data_ptr(),
            positions.data_ptr(),
            where.at.data_ptr(),
            where.oldest.data_ptr(),
            where.text.data_ptr(),
            ctypes.addressof(cache_pointers),
            where.capacity.data_ptr(),
            len(where.capacity),
            KINDS[where.dtype],
            ctypes.addressof(seen_pointers),
            None if seen_ids is None else seen_ids.data_ptr(),
            seen[0][0].shape[1] if seen else 0,
        )
        library().blt_run(ctypes.byref(self.stack), ctypes.byref(job), _threads())
        return x


def _layers(transformer: Transformer) -> list[TransformerLayer]:
    return [layer for layer in transformer.layers if isinstance(layer, TransformerLayer)]


def _pointers(addresses: list[int]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(addresses))(*addresses)


def _is_step(x: Tensor, caches: Sequence[KeyValueCache] | None) -> bool:
    return (
        caches is not None
        and isinstance(caches[0], RingLayer | PatchLayer)
        and len(x) <= MAX_NATIVE_ROWS
    )


class NativeTransformer(nn.Module):
    """A transformer whose steps run in C++."""

    def __init__(self, inner: Transformer) -> None:
        super().__init__()
        self.inner, self.native = inner, NativeStack(inner, [])
        self.heads, self.head_dim, self.window = inner.heads, inner.head_dim, inner.window
        self.depth = inner.depth

    def forward(
        self, x: Tensor, spans: Spans, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        if caches is not None and _is_step(x, caches):
            return self.native.run(x, spans.positions, caches)
        return self.inner(x, spans, caches)  # type: ignore[no-any-return]


class NativeDecoder(nn.Module):
    """A local decoder whose steps run in C++."""

    def __init__(self, inner: LocalDecoder) -> None:
        super().__init__()
        self.inner = inner
        self.cross_attention, self.transformer = inner.cross_attention, inner.transformer
        self.keys_values = inner.keys_values
        crossings = [
            layer for layer in inner.cross_attention if isinstance(layer, BytesFromPatches)
        ]
        self.native = NativeStack(inner.transformer, crossings)

    def forward(self, x: Tensor, patches: Tensor, batch: PackedBatch) -> Tensor:
        return self.inner(x, patches, batch)  # type: ignore[no-any-return]

    def logits(
        self,
        x: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
        patch_ids: Tensor,
        spans: Spans,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        if caches is None or not _is_step(x, caches):
            return self.inner.logits(x, seen, patch_ids, spans, caches)
        contiguous = [(k.float().contiguous(), v.float().contiguous()) for k, v in seen]
        x = self.native.run(x, spans.positions, caches, contiguous, patch_ids)
        return self.inner.head(self.inner.norm(x))  # type: ignore[no-any-return]


def with_native_steps(model: nn.Module) -> None:
    """Let all stacks and products of a packed model take their steps in C++."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LocalDecoder):
                setattr(module, name, NativeDecoder(child))
            elif isinstance(child, Transformer) and not isinstance(module, LocalDecoder):
                setattr(module, name, NativeTransformer(child))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, CastLinear | Int8Linear):
                setattr(module, name, NativeLinear(child))
            elif isinstance(child, ByteEmbedding) and child.byte.dtype is torch.float32:
                setattr(module, name, NativeEmbedding(child))
            elif isinstance(child, RMSNorm):
                setattr(module, name, NativeNorm(child))


def is_native(model: nn.Module) -> bool:
    return any(isinstance(module, NativeTransformer) for module in model.modules())
